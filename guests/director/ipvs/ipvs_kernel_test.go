//go:build kernel

package ipvs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// namespace moves the test's thread into a network namespace of its own. The thread ends with the test. The loopback is up: in a
// namespace without any local address the kernel takes every IPv4 destination for a broadcast and refuses it.
func namespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		t.Fatal(err)
	}
}

// oracle runs ipvsadm, which speaks to the same kernel without our code, and returns its lines sorted.
func oracle(t *testing.T, stdin string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("ipvsadm", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %v: %v: %s", args, err, out)
	}
	return lines(string(out))
}

func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		// The tunnel's type is beyond the library; direct routing has none.
		out = append(out, strings.TrimSuffix(strings.TrimSpace(line), " --tun-type ipip"))
	}
	slices.Sort(out)
	return out
}

func text(t *testing.T, table Table) []string {
	t.Helper()
	var b bytes.Buffer
	if err := Render(&b, table); err != nil {
		t.Fatal(err)
	}
	return lines(b.String())
}

// converge applies want and returns what the kernel has then; a second plan must be empty.
func converge(t *testing.T, k *Kernel, want Table) Table {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	have, err := k.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(ctx, Plan(want, have)); err != nil {
		t.Fatal(err)
	}
	if have, err = k.Observe(ctx); err != nil {
		t.Fatal(err)
	}
	if rest := Plan(want, have); len(rest) != 0 {
		t.Errorf("left after apply:\n%s", rendered(t, rest))
	}
	return have
}

func TestKernelAppliesAndReadsBack(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	want := wanted(t, fleet())
	have := converge(t, k, want)
	if diff := cmp.Diff(text(t, want), text(t, have)); diff != "" {
		t.Errorf("read back (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(oracle(t, "", "-S", "-n"), text(t, want)); diff != "" {
		t.Errorf("against ipvsadm (-want +got)\n%s", diff)
	}

	want.Services[0].Scheduler, want.Services[0].Flags = "wrr", 0
	want.Services[1].Flags, want.Services[1].Persistence = 0, 0
	want.Services[3].Destinations[1].Weight = 65535
	want.Services = want.Services[:4]
	converge(t, k, want)
	if diff := cmp.Diff(oracle(t, "", "-S", "-n"), text(t, want)); diff != "" {
		t.Errorf("after changes, against ipvsadm (-want +got)\n%s", diff)
	}
	converge(t, k, Table{})
	if rest := oracle(t, "", "-S", "-n"); len(rest) != 0 {
		t.Errorf("left: %v", rest)
	}
}

// TestKernelRestoresRendering holds that ipvsadm reads what Render writes, and that the kernel then has what was rendered.
func TestKernelRestoresRendering(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	want := wanted(t, fleet())
	want.Services = append(want.Services,
		Service{Key: Key{Mark: 7}, Scheduler: "wlc", Netmask: 0xffffffff, Flags: FlagOnePacket, Destinations: []Destination{{Address: addr("10.0.0.1"), Method: Tunnel, Weight: 5}}},
		Service{Key: Key{Mark: 8, IPv6: true}, Scheduler: "fo", Netmask: 128},
		Service{Key: Key{Address: addr("192.0.2.1"), Protocol: 132, Port: 9}, Scheduler: "rr", Flags: FlagPersistent, Persistence: 30 * time.Second, Netmask: 0x00ffffff},
	)
	var b bytes.Buffer
	if err := Render(&b, want); err != nil {
		t.Fatal(err)
	}
	oracle(t, b.String(), "-R")
	have, err := k.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text(t, want), text(t, have)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(oracle(t, "", "-S", "-n"), text(t, want)); diff != "" {
		t.Errorf("against ipvsadm -S (-want +got)\n%s", diff)
	}
}

// TestKernelClearsForeign holds that the table is wholly ours: what others put there goes, and their edits of ours are undone.
func TestKernelClearsForeign(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	want := wanted(t, fleet())
	converge(t, k, want)
	oracle(t, "", "-A", "-f", "9", "-s", "nq")
	oracle(t, "", "-a", "-f", "9", "-r", "10.9.9.9", "-i")
	oracle(t, "", "-E", "-t", "203.0.113.10:443", "-s", "dh")
	oracle(t, "", "-e", "-t", "203.0.113.11:443", "-r", "10.12.1.11:443", "-m", "-w", "3")
	oracle(t, "", "-d", "-t", "203.0.113.11:443", "-r", "10.12.1.12:443")
	converge(t, k, want)
	if diff := cmp.Diff(oracle(t, "", "-S", "-n"), text(t, want)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestKernelNamesMissingScheduler(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	want := wanted(t, fleet())
	want.Services[0].Scheduler = "nosuch"
	err := k.Apply(context.Background(), Plan(want, Table{}))
	if err == nil || !strings.Contains(err.Error(), "no scheduler nosuch in this kernel") {
		t.Errorf("error %v", err)
	}
	if got := len(oracle(t, "", "-S", "-n")); got != len(text(t, want))-4 {
		t.Errorf("%d lines, want all but the service that cannot be and its three destinations", got)
	}
}

// TestKernelOpensAgain holds that an operation without an answer ends in time and that the next one works.
func TestKernelOpensAgain(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	want := wanted(t, fleet())
	converge(t, k, want)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := k.with(func(s *socket) error {
		if err := s.wait(ctx, opTimeout); err != nil {
			return err
		}
		_, err := s.receive() // nothing was asked
		return err
	})
	if k.socket != nil {
		t.Error("the socket is still open")
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	have, err := k.Observe(context.Background())
	if err != nil || len(have.Services) != len(want.Services) {
		t.Errorf("%d services, error %v", len(have.Services), err)
	}
}

// TestKernelAppliesInPieces makes a table of more steps than go out in one piece, with one service in the middle that cannot be.
func TestKernelAppliesInPieces(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	var want Table
	for i := range 3 * atOnce / 4 {
		s := Service{Key: Key{Address: addr("203.0.113.1"), Protocol: 6, Port: uint16(i + 1)}, Scheduler: "rr", Netmask: 0xffffffff}
		for j := range byte(3) {
			s.Destinations = append(s.Destinations, Destination{Address: netip.AddrFrom4([4]byte{10, 0, 0, j + 1}), Port: s.Port, Method: Route, Weight: int(j)})
		}
		want.Services = append(want.Services, s)
	}
	want.Services[atOnce/4-1].Scheduler = "nosuch" // its destinations are in two pieces
	err := k.Apply(context.Background(), Plan(want, Table{}))
	if err == nil || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("error %v, want one", err)
	}
	want.Services[atOnce/4-1].Scheduler = "rr"
	converge(t, k, want)
	if diff := cmp.Diff(oracle(t, "", "-S", "-n"), text(t, want)); diff != "" {
		t.Errorf("against ipvsadm (-want +got)\n%s", diff)
	}
}

// TestNamespaceByPath writes into the namespace of another thread.
func TestNamespaceByPath(t *testing.T) {
	namespace(t)
	path := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	want := wanted(t, fleet())
	done := make(chan error, 1)
	go func() {
		k := Open(path)
		defer k.Close()
		done <- k.Apply(context.Background(), Plan(want, Table{}))
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(oracle(t, "", "-S", "-n"), text(t, want)); diff != "" {
		t.Errorf("against ipvsadm (-want +got)\n%s", diff)
	}
}

// TestKernelKnowsGranularityAndOnePacket holds that what a policy says of them is what ipvsadm reads in the kernel, and that a change
// of it is one update.
func TestKernelKnowsGranularityAndOnePacket(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	services := []policy.VirtualService{
		{VIP: addr("203.0.113.10"), Protocol: policy.TCP, Port: 443, Scheduler: "wlc", Persistence: 5 * time.Minute, Granularity: 20},
		{VIP: addr("203.0.113.53"), Protocol: policy.UDP, Port: 53, Scheduler: "wrr", OnePacket: true},
		{VIP: addr("2001:db8:5::10"), Protocol: policy.TCP, Port: 443, Scheduler: "wlc", Persistence: 5 * time.Minute, Granularity: 56},
	}
	table := func() Table {
		t.Helper()
		want, err := Wanted(services, make([][]int, len(services)), nil)
		if err != nil {
			t.Fatal(err)
		}
		return want
	}
	have := converge(t, k, table())
	want := []string{
		"-A -t 203.0.113.10:443 -s wlc -p 300 -M 255.255.240.0", "-A -t [2001:db8:5::10]:443 -s wlc -p 300 -M 56", "-A -u 203.0.113.53:53 -s wrr -o",
	}
	if diff := cmp.Diff(want, oracle(t, "", "-S", "-n")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	services[0].Granularity, services[1].OnePacket = 0, false
	if steps := Plan(table(), have); len(steps) != 2 || steps[0].Op != SetService || steps[1].Op != SetService {
		t.Errorf("steps\n%s", rendered(t, steps))
	}
	converge(t, k, table())
	if got := oracle(t, "", "-S", "-n"); got[0] != "-A -t 203.0.113.10:443 -s wlc -p 300" || got[2] != "-A -u 203.0.113.53:53 -s wrr" {
		t.Errorf("%q", got)
	}
}
