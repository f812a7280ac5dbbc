package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/result"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// yard is a namespace in which ports of guests come and go.
type yard struct {
	ns     *traffic.Namespace
	kernel *bridges.Kernel
	folder string
	empty  bridges.Spec // the bridge and the guest's namespace
	full   bridges.Spec // and its ports
}

const (
	yardGuest  = policy.GuestName("guest")
	yardBridge = "br120"
)

func newYard(ctx context.Context, ports int) (*yard, error) {
	ns, err := traffic.NewNamespace()
	if err != nil {
		return nil, err
	}
	y := &yard{ns: ns}
	if y.folder, err = os.MkdirTemp("", "bench-netns-"); err != nil {
		y.Close()
		return nil, err
	}
	if _, err := ns.NewBridge("elsewhere", map[string]net.HardwareAddr{"trunk0": routerMAC[:]}); err != nil {
		y.Close()
		return nil, err
	}
	if err := ns.CallIPTables(false); err != nil {
		y.Close()
		return nil, err
	}
	y.kernel = bridges.NewKernel(bridges.Options{Namespace: ns.Path(), Namespaces: y.folder})
	y.empty = bridges.Spec{
		Trunk: "trunk0", Namespaces: []policy.GuestName{yardGuest},
		Bridges: []bridges.Bridge{{Name: yardBridge, Network: "svc", MAC: policy.MAC{2, 0, 0, 0, 0xff, 2}}},
	}
	y.full = y.empty
	for i := range ports {
		y.full.Ports = append(y.full.Ports, bridges.Port{
			Name: fmt.Sprintf("port%03d", i), Kind: bridges.KindVeth, Guest: yardGuest, Interface: fmt.Sprintf("eth%d", i), Bridge: yardBridge,
			MAC: policy.MAC{0xfe, 0, 0, 0, byte(i >> 8), byte(i)}, GuestMAC: policy.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)},
		})
	}
	if _, err := y.converge(ctx, y.empty); err != nil {
		y.Close()
		return nil, err
	}
	return y, nil
}

// Close takes the namespaces away. The folder's are mounts.
func (y *yard) Close() {
	_ = y.ns.Close()
	_ = unix.Unmount(y.guest(), unix.MNT_DETACH)
	_ = unix.Unmount(y.folder, unix.MNT_DETACH)
	_ = os.RemoveAll(y.folder)
}

func (y *yard) guest() string { return filepath.Join(y.folder, string(yardGuest)) }

// converge makes the links so and returns the milliseconds that Apply took, in all its phases. Nothing may be left to do.
func (y *yard) converge(ctx context.Context, want bridges.Spec) (float64, error) {
	have, err := y.kernel.Observe(ctx)
	if err != nil {
		return 0, err
	}
	steps := bridges.Plan(want, have)
	begin := time.Now()
	for _, phase := range [][]bridges.Step{steps.Remove, steps.Create, steps.Attach} {
		if err := y.kernel.Apply(ctx, phase); err != nil {
			return 0, err
		}
	}
	took := float64(time.Since(begin)) / 1e6
	if have, err = y.kernel.Observe(ctx); err != nil {
		return 0, err
	}
	if left := bridges.Plan(want, have).All(); len(left) > 0 {
		return 0, fmt.Errorf("converge links: %d steps are left, the first %s %s: %s", len(left), left[0].Verb, left[0].Object, left[0].Reason)
	}
	return took, nil
}

// batch makes the ports with ip, all in one process, and returns the milliseconds.
func (y *yard) batch() (float64, error) {
	var b strings.Builder
	for _, p := range y.full.Ports {
		fmt.Fprintf(&b, "link add %s up master %s address %s type veth peer name %s netns %s address %s\n", p.Name, p.Bridge, p.MAC, p.Interface, y.guest(), p.GuestMAC)
	}
	begin := time.Now()
	_, err := y.ns.Run(b.String(), "ip", "-batch", "-")
	return float64(time.Since(begin)) / 1e6, err
}

// oneByOne deletes the ports and returns the milliseconds.
func (y *yard) oneByOne() (float64, error) {
	var names []string
	for _, p := range y.full.Ports {
		names = append(names, p.Name)
	}
	begin := time.Now()
	err := y.ns.Delete(names...)
	return float64(time.Since(begin)) / 1e6, err
}

// guestPorts is N1 and N2: 256 ports of guests are made and removed.
func guestPorts(ctx context.Context, o options) ([]result.Row, error) {
	const ports = 256
	y, err := newYard(ctx, ports)
	if err != nil {
		return nil, err
	}
	defer y.Close()
	var ours, theirs []float64 // what removal took; what creation took is in the series
	series, err := result.Interleave(
		o.rounds,
		result.Subject{Name: "ours", Measure: func() (float64, error) {
			created, err := y.converge(ctx, y.full)
			if err != nil {
				return 0, err
			}
			removed, err := y.converge(ctx, y.empty)
			ours = append(ours, removed)
			return created, err
		}},
		result.Subject{Name: "theirs", Measure: func() (float64, error) {
			created, err := y.batch()
			if err != nil {
				return 0, err
			}
			removed, err := y.oneByOne()
			theirs = append(theirs, removed)
			return created, err
		}},
	)
	if err != nil {
		return nil, err
	}
	return []result.Row{
		result.Compare("N1", fmt.Sprintf("%d ports removed", ports), "one by one", "ms", ours[1:], theirs[1:]).Judged(result.AtMost, 0.05),
		result.Compare("N2", fmt.Sprintf("%d ports made", ports), "ip -batch", "ms", series["ours"], series["theirs"]).Judged(result.AtMost, 1.1),
	}, nil
}
