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
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// harm is one act of a stranger. What it returns says whether it has been made good, and is asked often.
// Some of it lasts until after ends it.
type harm struct {
	name  string
	do    func(t *testing.T, b *blade) (good func() error)
	after func(t *testing.T)
}

// harms are what strangers do to a blade with a director and the real servers www-1 and www-2.
var harms = []harm{
	{name: "flush the ruleset", do: func(t *testing.T, _ *blade) func() error {
		run(t, "nft", "flush", "ruleset")
		return filterStands
	}},
	{name: "detach a port", do: func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "set", "www-1.1", "nomaster")
		return attached("www-1.1")
	}},
	{name: "take a port down", do: func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "set", "www-2.0", "down")
		return attached("www-2.0")
	}},
	{name: "delete a port", do: func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "del", "www-2.1")
		return attached("www-2.1")
	}},
	{name: "delete a VLAN", do: func(t *testing.T, _ *blade) func() error {
		run(t, "ip", "link", "del", "vlan130")
		return attached("vlan130")
	}},
	{name: "take a VIP off a real server", do: func(t *testing.T, _ *blade) func() error {
		run(t, "nsenter", "--net="+policy.NamespacePath("www-1"), "ip", "addr", "del", vip4+"/32", "dev", "lo")
		return hasAddress("www-1", vip4)
	}},
	{name: "take a default route away", do: func(t *testing.T, _ *blade) func() error {
		run(t, "nsenter", "--net="+policy.NamespacePath("www-2"), "ip", "route", "del", "default")
		return hasDefaultRoute("www-2")
	}},
	{name: "kill a container's init", do: func(t *testing.T, _ *blade) func() error {
		was := initOf(t, "www-1")
		run(t, "kill", "-9", was)
		return func() error { return anotherInit("www-1", was) }
	}},
	{name: "kill bladed", do: func(t *testing.T, b *blade) func() error {
		b.end(syscall.SIGKILL)
		b.start(t)
		return settled(t)
	}},
	{name: "restart libvirtd", do: func(t *testing.T, _ *blade) func() error {
		stopLibvirtd(t)
		startLibvirtd(t)
		return settled(t)
	}},
	{name: "drop the store", do: func(t *testing.T, _ *blade) func() error {
		inForce := fmt.Sprintf("%s/revisions/%d.json", state, status(t).Revision)
		was, err := os.ReadFile(inForce)
		if err := errors.Join(err, os.RemoveAll(state+"/revisions"), os.RemoveAll(state+"/journal")); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			t.Fatal(err) // not that the agent put a file back in between
		}
		return func() error {
			if now, err := os.ReadFile(inForce); err != nil || string(now) != string(was) {
				return fmt.Errorf("%s holds %d bytes, held %d: %w", inForce, len(now), len(was), err)
			}
			_, err := os.Stat(state + "/journal/events.jsonl")
			return err
		}
	}},
	{name: "fill the disk, and more", do: fillDisk, after: emptyDisk},
}

// ballast fills the disk that all of bladed's files are on.
const ballast = state + "/ballast"

// fillDisk leaves no room, ends bladed, and harms links and a guest. The policy folder has a change that cannot be taken now.
func fillDisk(t *testing.T, b *blade) func() error {
	if err := os.WriteFile(soakFile, []byte("hosts:\n  soak: {from: [203.0.113.128/26], allow: [9100/tcp]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(ballast) })
	at, size := int64(0), int64(1)<<40
	for size >= 4096 {
		if err := unix.Fallocate(int(f.Fd()), 0, at, size); err == nil {
			at += size
		} else {
			size /= 2
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before := status(t).Revision
	b.end(syscall.SIGKILL)
	b.start(t)
	if err := agent.Apply(t.Context(), api.ApplyRequest{}, func(api.Event) {}); err == nil || !strings.Contains(err.Error(), unix.ENOSPC.Error()) || status(t).Revision != before {
		t.Errorf("apply on a full disk: %v, revision %d, was %d", err, status(t).Revision, before)
	}
	if err := os.Remove(soakFile); err != nil {
		t.Fatal(err)
	}
	was := initOf(t, "www-1")
	run(t, "kill", "-9", was)
	run(t, "ip", "link", "del", "www-2.1")
	return func() error { return errors.Join(attached("www-2.1")(), anotherInit("www-1", was)) }
}

// emptyDisk gives the room back: what could not be taken is taken now, and a director that had to write, and so was paused, goes on.
func emptyDisk(t *testing.T) {
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	soakRound(t, agent)
}

// Where bladed has what it keeps, and its containers.
const (
	state      = "/var/lib/bladenet"
	containers = state + "/lxc"
)

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
		if h.after != nil {
			h.after(t)
		}
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
				neighbours, _ := exec.Command("ip", "netns", "exec", "router", "ip", "neigh").CombinedOutput()
				t.Errorf("%s answered %v, want %d; neighbours of the router:\n%s", vip, got, once, neighbours)
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

// settled asks the daemon whether it has found the blade as wanted, after a pass over all of it.
func settled(t *testing.T) func() error {
	return func() error {
		s, err := agent.Status(t.Context())
		if err == nil && !s.Converged {
			err = fmt.Errorf("not as wanted: %+v", s.Waiting)
		}
		return err
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

func anotherInit(guest, was string) error {
	out, err := exec.Command("lxc-info", "-P", containers, "-n", guest, "-pH").Output()
	now := strings.TrimSpace(string(out))
	if pid, notOne := strconv.Atoi(now); err != nil || notOne != nil || pid <= 0 || now == was {
		return fmt.Errorf("init is %q, %v", now, err)
	}
	return nil
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
