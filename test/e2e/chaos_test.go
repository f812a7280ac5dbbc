//go:build kernel

package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/bladenet/bladenet/policy"
)

// harm is one act of a stranger. What it returns says whether it has been made good, and is asked often.
type harm struct {
	name string
	do   func(t *testing.T, b *blade) (good func() error)
}

// harms are what strangers do to a blade with a director and the real servers www-1 and www-2.
var harms = []harm{
	{"flush the ruleset", func(t *testing.T, _ *blade) func() error {
		run(t, "nft", "flush", "ruleset")
		return filterStands
	}},
	{"detach a port", func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "set", "www-1.1", "nomaster")
		return attached("www-1.1")
	}},
	{"take a port down", func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "set", "www-2.0", "down")
		return attached("www-2.0")
	}},
	{"delete a port", func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "del", "www-2.1")
		return attached("www-2.1")
	}},
	{"delete a VLAN", func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "del", "vlan130")
		return attached("vlan130")
	}},
	{"take a VIP off a real server", func(t *testing.T, _ *blade) func() error {
		run(t, "nsenter", "--net="+policy.NamespacePath("www-1"), "ip", "addr", "del", vip4+"/32", "dev", "lo")
		return hasAddress("www-1", vip4)
	}},
	{"take a default route away", func(t *testing.T, _ *blade) func() error {
		run(t, "nsenter", "--net="+policy.NamespacePath("www-2"), "ip", "route", "del", "default")
		return hasDefaultRoute("www-2")
	}},
	{"kill a container's init", func(t *testing.T, _ *blade) func() error {
		was := initOf(t, "www-1")
		run(t, "kill", "-9", was)
		return func() error {
			if now, err := exec.Command("lxc-info", "-P", containers, "-n", "www-1", "-pH").Output(); err != nil || strings.TrimSpace(string(now)) == was {
				return fmt.Errorf("init is %q, %v", now, err)
			}
			return nil
		}
	}},
	{"kill bladed", func(t *testing.T, b *blade) func() error {
		b.end(syscall.SIGKILL)
		b.start(t)
		return filterStands
	}},
	{"restart libvirtd", func(t *testing.T, _ *blade) func() error {
		stopLibvirtd(t)
		startLibvirtd(t)
		return func() error { return nil } // what matters is below: the blade converges
	}},
}

// containers is where bladed has them.
const containers = "/var/lib/bladenet/lxc"

// seed draws the order of the harms; a failure prints it.
const seed = 2011

// TestChaos lets strangers do harm to a blade for BLADENET_CHAOS (2 min if unset), one act after the other: each is made good by itself, users are
// answered after it, and the agent's own cost stays bounded.
func TestChaos(t *testing.T) {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("BLADENET_CHAOS"), "2m"))
	if err != nil {
		t.Fatal(err)
	}
	b := begin(t)
	defer furnish(t)()
	draw := rand.New(rand.NewPCG(seed, 0))
	took := map[string][]time.Duration{}
	var all []time.Duration
	for end := time.Now().Add(length); time.Now().Before(end); {
		h := harms[draw.IntN(len(harms))]
		good := h.do(t, b)
		began := time.Now()
		for err = good(); err != nil; err = good() {
			if time.Since(began) > time.Minute {
				t.Fatalf("%s (seed %d): not made good after a minute: %v", h.name, seed, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		one := time.Since(began)
		took[h.name], all = append(took[h.name], one), append(all, one)
		converged(t)
		reachable(t)
	}
	for _, h := range harms {
		if len(took[h.name]) > 0 {
			t.Logf("%-32s %3d times, made good after %v at the median, %v at worst", h.name, len(took[h.name]), median(took[h.name]), slices.Max(took[h.name]))
		}
	}
	t.Logf("%d acts in %v: median %v, worst %v; bladed took %v of processor since its last start", len(all), length, median(all), slices.Max(all), processorTime(t, b.cmd.Process.Pid))
}

// TestRestarts ends bladed BLADENET_RESTARTS times (20 if unset), by turns as an upgrade does and by SIGKILL, while users ask as fast as they get
// answers: none is lost.
func TestRestarts(t *testing.T) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("BLADENET_RESTARTS"), "20"))
	if err != nil {
		t.Fatal(err)
	}
	b := begin(t)
	defer furnish(t)()
	var asked atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	began := time.Now()
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			const once = 50
			vip := []string{vip4, vip6}[i%2]
			got := ask(t, vip, once)
			if got["www-1"]+got["www-2"] != once {
				t.Errorf("%s answered %v, want %d", vip, got, once)
			}
			asked.Add(once)
		}
	})
	for i := range n {
		b.end([]os.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2])
		b.start(t)
	}
	close(stop)
	wg.Wait()
	converged(t)
	t.Logf("%d restarts in %v: %d requests, %.0f a second", n, time.Since(began).Round(time.Second), asked.Load(), float64(asked.Load())/time.Since(began).Seconds())
}

// furnish gives the blade a director and two real servers that answer; clear takes them away again.
func furnish(t *testing.T) (clear func()) {
	t.Helper()
	ctl(t, "spawn", "director", director, "--site", "lombarderie")
	ctl(t, "spawn", "realserver", "www", "--count", "2", "--service", "www", "--image", "web")
	converged(t)
	reachable(t)
	return func() {
		for _, name := range []string{"www-1", "www-2", director} {
			if out, code := try(t, "destroy", name); code != 0 {
				t.Errorf("destroy %s: %s", name, out)
			}
		}
	}
}

func filterStands() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if table.Name == "bladenet" {
			return nil
		}
	}
	return errors.New("table bridge bladenet is not there")
}

func attached(name string) func() error {
	return func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if link.Attrs().MasterIndex == 0 || link.Attrs().Flags&net.FlagUp == 0 {
			return fmt.Errorf("%s has master %d, flags %v", name, link.Attrs().MasterIndex, link.Attrs().Flags)
		}
		return nil
	}
}

// inside returns what speaks to the kernel about a guest's namespace.
func inside(guest policy.GuestName) (*netlink.Handle, error) {
	ns, err := netns.GetFromPath(policy.NamespacePath(guest))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns)
}

func hasAddress(guest policy.GuestName, address string) func() error {
	return func() error {
		h, err := inside(guest)
		if err != nil {
			return err
		}
		defer h.Close()
		addresses, err := h.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if a.IP.Equal(net.ParseIP(address)) {
				return nil
			}
		}
		return fmt.Errorf("%s has no %s", guest, address)
	}
}

func hasDefaultRoute(guest policy.GuestName) func() error {
	return func() error {
		h, err := inside(guest)
		if err != nil {
			return err
		}
		defer h.Close()
		routes, err := h.RouteList(nil, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Dst == nil || r.Dst.IP.IsUnspecified() {
				return nil
			}
		}
		return fmt.Errorf("%s has no default route", guest)
	}
}

func initOf(t *testing.T, guest string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "lxc-info", "-P", containers, "-n", guest, "-pH"))
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// processorTime is what a process has used, from fields 14 and 15 of /proc/PID/stat, in ticks of 1/100 s.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
