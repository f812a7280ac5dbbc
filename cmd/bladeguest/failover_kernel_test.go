//go:build kernel

package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/traffic"
	"github.com/bladenet/bladenet/test/router"
)

// How many connections are open when a director dies, how far apart requests of all of them lie, and for how long they go on after it.
const (
	sessions     = 200
	requestEvery = 20 * time.Millisecond
	afterwards   = 12 * time.Second
)

// way is how routers know of directors, and how many there are.
type way struct {
	name, protocol string
	announce       policy.Announce
	directors      int
	usually        string // the VIP whose director dies in every run; empty: none
}

// TestKernelADirectorDies runs two or three directors in namespaces, and takes the one that most sessions to a VIP go by off its network with everything in it,
// as a power cut does, under two hundred established sessions over both families. Every session goes on at its real server, and the log says how
// long requests stalled: by OSPF's dead interval, and with BFD by OSPF and BGP. BLADENET_FAILOVER=all is for a quiet machine: each on the way of each
// family, and BFD three times as fast.
func TestKernelADirectorDies(t *testing.T) {
	all := os.Getenv("BLADENET_FAILOVER") == "all"
	pace := policy.BFD{Interval: router.UsualBFD, Multiplier: 3}
	if all {
		pace.Interval /= 3
	}
	for _, w := range []way{
		{"OSPF, dead interval 4 s", "ospf", policy.Announce{OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}}, 2, vip6},
		{"OSPF, BFD", "ospf", policy.Announce{OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second, BFD: pace}}, 2, ""},
		{"BGP, BFD", "bgp", policy.Announce{BGP: &policy.BGP{AS: 64512, PeerAS: 64500, BFD: pace}}, 3, vip4},
	} {
		for _, vip := range []string{vip4, vip6} {
			if !all && vip != w.usually {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d directors, the way of %s", w.name, w.directors, vip), func(t *testing.T) { aDirectorDies(t, w, vip) })
		}
	}
}

func aDirectorDies(t *testing.T, w way, vip string) {
	s, n := newSite(t), w.directors
	directors := s.announcing(w)
	allWays := func() bool { return s.ways(vip4) == n && s.ways(vip6) == n }
	if w.announce.Watched().Enabled() {
		s.until(2*time.Minute, "BFD watches all directors in both families", func() bool { return s.watched() == 2*n })
	}
	s.until(2*time.Minute, "a way by each director to both VIPs, for three seconds", func() bool {
		began := time.Now() // directors that start keep the machine busy, and BFD is impatient
		for allWays() && time.Since(began) < 3*time.Second {
			time.Sleep(100 * time.Millisecond)
		}
		return allWays()
	})
	list := s.open(sessions)
	s.until(time.Minute, "a way by each director to both VIPs still", allWays)
	died, carried := "", 0
	for name := range directors {
		if c := s.carries(name, vip); c > carried {
			died, carried = name, c
		}
	}
	if carried == 0 {
		t.Fatal("no director has a session in its table")
	}

	asked := askAll(list)
	time.Sleep(2 * time.Second)
	at := time.Now()
	for _, network := range []int{uplink, serving} {
		s.ip("-n", s.names["switch"], "link", "del", fmt.Sprintf("%s.%d", died, network))
	}
	end(directors[died])
	s.until(time.Minute, "a way less", func() bool { return s.ways(vip) == n-1 })
	away := time.Since(at)
	took, errs := asked()
	if len(errs) > 0 {
		t.Errorf("%d of %d sessions did not go on, first: %v", len(errs), sessions, errs[0])
	}
	var slowest time.Duration
	for i, d := range took {
		if vipOf(i) == vip {
			slowest = max(slowest, d)
		}
	}
	t.Logf("%s, one of %d, died with %d of %d sessions to %s: the router left it after %.2f s, the slowest of their requests took %.2f s", died, n, carried, sessions/2, vip, away.Seconds(), slowest.Seconds())
}

// announcing runs directors, each as the first process of its own, with their router and the real servers' service.
func (s *site) announcing(w way) map[string]*exec.Cmd {
	s.t.Helper()
	for _, family := range []string{"-4", "-6"} {
		s.ip(family, "-n", s.names["user"], "route", "flush", "proto", "boot")
	}
	s.start("rs1", "server", "rs1")
	s.start("rs2", "server", "rs2")
	names := []string{"dir", "dir2", "dir3"}[:w.directors]
	link := router.Link{Interface: "front", Router4: "10.0.0.1", BFD: w.announce.Watched().Interval}
	for i, name := range names {
		if i > 0 {
			s.plug(name, "eth0", uplink)
			s.plug(name, "eth1", serving)
		}
		link.Directors = append(link.Directors, fmt.Sprintf("10.0.0.%d", 11+i), fmt.Sprintf("2001:db8::%d", 11+i))
	}
	openUp(s.t, s.dir)
	link.Start(s.t, s.names["user"], filepath.Join(s.dir, "router"), w.protocol)
	out := map[string]*exec.Cmd{}
	for i, name := range names {
		out[name] = s.as(name).survivor(11+i, w.announce)
	}
	return out
}

// openUp lets the routing daemons' own user into a folder.
func openUp(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// as is the same site, seen from another director.
func (s *site) as(director string) *site {
	s.t.Helper()
	other := &site{t: s.t, names: maps.Clone(s.names), dir: s.t.TempDir()}
	other.names["dir"] = s.names[director]
	openUp(s.t, other.dir)
	return other
}

// survivor runs a director whose addresses end with a number. Its services are in survive mode.
func (s *site) survivor(host int, how policy.Announce) *exec.Cmd {
	s.t.Helper()
	init := s.startInit()
	state := s.state()
	state.Inside.Interfaces = []policy.Interface{iface("eth0", uplink, host), iface("eth1", serving, host)}
	for i := range state.Balancer.Services {
		v := &state.Balancer.Services[i]
		v.Scheduler, v.Mode, v.Flags = "mh", "survive", []string{"mh-port", "mh-fallback"}
	}
	how.RouterID = state.Inside.Interfaces[0].Addresses[0].Addr()
	how.Routers = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}
	state.Balancer.Announce = how
	if _, err := s.dial().Apply(s.t.Context(), state); err != nil {
		s.t.Fatal(err)
	}
	return init
}

// ways counts the router's ways to a VIP.
func (s *site) ways(vip string) int {
	s.t.Helper()
	return strings.Count(s.ip(familyOf(vip), "-n", s.names["user"], "route", "show", vip), "via ")
}

func familyOf(address string) string {
	if strings.Contains(address, ":") {
		return "-6"
	}
	return "-4"
}

// watched counts the router's BFD sessions that are up.
func (s *site) watched() int {
	s.t.Helper()
	return strings.Count(s.command("vtysh", "--vty_socket", filepath.Join(s.dir, "router"), "-d", "bfdd", "-c", "show bfd peers json"), `"status":"up"`)
}

// carries counts the sessions to a VIP in a director's table.
func (s *site) carries(director, vip string) int {
	s.t.Helper()
	return strings.Count(s.exec(director, "ipvsadm", "-L", "-n", "-c"), net.JoinHostPort(vip, "80"))
}

// vipOf is what the session of a number goes to: both by turns.
func vipOf(i int) string { return []string{vip4, vip6}[i%2] }

// open makes sessions and asks on each once.
func (s *site) open(n int) []*traffic.Session {
	s.t.Helper()
	var list []*traffic.Session
	err := traffic.In("/run/netns/"+s.names["user"], func() error {
		for i := range n {
			one, err := traffic.Dial(net.JoinHostPort(vipOf(i), "80"), 15*time.Second)
			if err != nil {
				return err
			}
			s.t.Cleanup(func() { _ = one.Close() })
			list = append(list, one)
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("open session %d: %v", len(list)+1, err)
	}
	return list
}

// askAll asks on one session after the other, one at a time and whatever became of those before. The function that it returns waits for the
// end and gives the longest that a request of each session took, and what failed, once for each.
func askAll(list []*traffic.Session) func() ([]time.Duration, []error) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	slowest := make([]time.Duration, len(list))
	failed := map[*traffic.Session]error{}
	busy := make([]sync.Mutex, len(list))
	wait.Go(func() {
		tick := time.NewTicker(requestEvery)
		defer tick.Stop()
		for i, begin := 0, time.Now(); time.Since(begin) < afterwards; i++ {
			<-tick.C
			wait.Go(func() {
				at := i % len(list)
				busy[at].Lock()
				defer busy[at].Unlock()
				asked := time.Now()
				err := list[at].Ask(time.Minute)
				took := time.Since(asked)
				mu.Lock()
				defer mu.Unlock()
				slowest[at] = max(slowest[at], took)
				if err != nil {
					failed[list[at]] = cmp.Or(failed[list[at]], err)
				}
			})
		}
	})
	return func() ([]time.Duration, []error) {
		wait.Wait()
		var errs []error
		for _, s := range list {
			if err := failed[s]; err != nil {
				errs = append(errs, err)
			}
		}
		return slowest, errs
	}
}
