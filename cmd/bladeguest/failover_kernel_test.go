//go:build kernel

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
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

// TestKernelADirectorDies runs two directors in namespaces, and takes the one that users' packets go by off its network with everything in it,
// as a power cut does, under two hundred established sessions over both families. Every session goes on at its real server, and the log says how
// long requests stalled: by OSPF's dead interval, and with BFD by OSPF and BGP. BLADENET_FAILOVER=all tries each on the way of each family.
func TestKernelADirectorDies(t *testing.T) {
	pace := policy.BFD{Interval: 100 * time.Millisecond, Multiplier: 3}
	for _, way := range []struct {
		name, protocol string
		announce       policy.Announce
		usually        string // the VIP whose way is cut in every run; empty: none
	}{
		{"OSPF, dead interval 4 s", "ospf", policy.Announce{OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}}, vip6},
		{"OSPF, BFD 100 ms x 3", "ospf", policy.Announce{OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second, BFD: pace}}, ""},
		{"BGP, BFD 100 ms x 3", "bgp", policy.Announce{BGP: &policy.BGP{AS: 64512, PeerAS: 64500, BFD: pace}}, vip4},
	} {
		for _, vip := range []string{vip4, vip6} {
			if os.Getenv("BLADENET_FAILOVER") != "all" && vip != way.usually {
				continue
			}
			t.Run(way.name+", the way of "+vip, func(t *testing.T) { aDirectorDies(t, way.protocol, way.announce, vip) })
		}
	}
}

func aDirectorDies(t *testing.T, protocol string, announce policy.Announce, vip string) {
	s := newSite(t)
	directors := s.twoDirectors(protocol, announce)
	bothWays := func() bool { return s.ways(vip4) == 2 && s.ways(vip6) == 2 }
	s.until(2*time.Minute, "two ways to both VIPs", bothWays)
	if announce.Watched().Enabled() {
		s.until(time.Minute, "BFD watches both directors in both families", func() bool { return s.watched() == 4 })
	}
	list := s.open(sessions)
	s.until(time.Minute, "two ways to both VIPs still", bothWays)
	died := s.onTheWay(vip)

	asked := askAll(list)
	time.Sleep(2 * time.Second)
	for _, network := range []int{uplink, serving} {
		s.ip("-n", s.names["switch"], "link", "del", fmt.Sprintf("%s.%d", died, network))
	}
	end(directors[died])
	away := s.until(time.Minute, "another way", func() bool { now := s.onTheWay(vip); return now != "" && now != died })
	slowest, errs := asked()
	if len(errs) > 0 {
		t.Errorf("%d of %d sessions did not go on, first: %v", len(errs), sessions, errs[0])
	}
	t.Logf("%s died under %d sessions: %s went another way after %.2f s, the slowest request took %.2f s", died, sessions, vip, away.Seconds(), slowest.Seconds())
}

// twoDirectors runs two directors and their router, each as the first process of its own, and the real servers' service.
func (s *site) twoDirectors(protocol string, announce policy.Announce) map[string]*exec.Cmd {
	s.t.Helper()
	s.plug("dir2", "eth0", uplink)
	s.plug("dir2", "eth1", serving)
	for _, family := range []string{"-4", "-6"} {
		s.ip(family, "-n", s.names["user"], "route", "flush", "proto", "boot")
	}
	s.start("rs1", "server", "rs1")
	s.start("rs2", "server", "rs2")
	openUp(s.t, s.dir)
	link := router.Link{
		Interface: "front", Router4: "10.0.0.1", BFD: announce.Watched().Interval,
		Directors: []string{"10.0.0.11", "2001:db8::11", "10.0.0.12", "2001:db8::12"},
	}
	link.Start(s.t, s.names["user"], filepath.Join(s.dir, "router"), protocol)
	out := map[string]*exec.Cmd{}
	for i, name := range []string{"dir", "dir2"} {
		out[name] = s.as(name).announcing(11+i, announce)
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

// announcing runs a director whose addresses end with a number. Its services are in survive mode.
func (s *site) announcing(host int, how policy.Announce) *exec.Cmd {
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

// onTheWay is the director by which users' packets to a VIP go; empty: they go nowhere.
func (s *site) onTheWay(vip string) string {
	out, err := exec.Command("ip", "-n", s.names["user"], "route", "get", vip).CombinedOutput()
	if err != nil {
		return ""
	}
	_, via, _ := strings.Cut(string(out), " via ")
	via, _, _ = strings.Cut(strings.TrimPrefix(via, "inet6 "), " ")
	for _, name := range []string{"dir", "dir2"} {
		if strings.Contains(s.addresses(name), " "+via+"/") {
			return name
		}
	}
	return ""
}

// addresses are those of a director's uplink; none when it is gone.
func (s *site) addresses(director string) string {
	out, _ := exec.Command("ip", "-n", s.names[director], "-o", "addr", "show", "dev", "eth0").CombinedOutput()
	return string(out)
}

// session is one open connection of a user, and the real server that answers it.
type session struct {
	conn   net.Conn
	in     *bufio.Reader
	server string
}

// open makes sessions to both VIPs by turns, and asks on each once.
func (s *site) open(n int) []*session {
	s.t.Helper()
	var list []*session
	err := traffic.In("/run/netns/"+s.names["user"], func() error {
		for i := range n {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort([]string{vip4, vip6}[i%2], "80"), 15*time.Second)
			if err != nil {
				return err
			}
			s.t.Cleanup(func() { _ = conn.Close() })
			one := &session{conn: conn, in: bufio.NewReader(conn)}
			if one.server, err = one.request(); err != nil {
				return err
			}
			list = append(list, one)
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("open session %d: %v", len(list)+1, err)
	}
	return list
}

// request asks on the open connection who answers.
func (s *session) request() (string, error) {
	_ = s.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(s.conn, "GET / HTTP/1.1\r\nHost: www\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// askAll asks on one session after the other, one at a time and whatever became of those before. The function that it returns waits for the
// end and gives the longest that a request took, and what failed, once for each session.
func askAll(list []*session) func() (time.Duration, []error) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	var slowest time.Duration
	failed := map[*session]error{}
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
				name, err := list[at].request()
				took := time.Since(asked)
				if err == nil && name != list[at].server {
					err = fmt.Errorf("a session of %s is answered by %s", list[at].server, name)
				}
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, took)
				if err != nil {
					failed[list[at]] = cmp.Or(failed[list[at]], err)
				}
			})
		}
	})
	return func() (time.Duration, []error) {
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
