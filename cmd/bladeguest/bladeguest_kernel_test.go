//go:build kernel

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// TestMain lets this program play the parts of a test that need a namespace of their own: bladeguest in its three roles, a real
// server, a user.
func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) > 1 && (os.Args[1] == "--guard" || os.Args[1] == "--beat") {
		os.Exit(play(log, "guest"))
	}
	if part := os.Getenv("BLADEGUEST_TEST_PART"); part != "" {
		os.Exit(play(log, part))
	}
	os.Exit(m.Run())
}

func play(log *slog.Logger, part string) int {
	switch part {
	case "guest":
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		return run(ctx, log, os.Stderr, os.Args[1:])
	case "init":
		runInit(log, os.Args[1:])
	case "server":
		name := os.Args[1]
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
		log.Error("serve", "err", http.ListenAndServe(":80", nil))
	case "user":
		for _, url := range os.Args[1:] {
			fmt.Println(fetch(url))
		}
		return 0
	}
	return 1
}

// fetch returns what a server answers, over a connection of its own.
func fetch(url string) string {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "error: " + err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 100))
	return string(body)
}

const (
	vip4, vip6 = "203.0.113.10", "2001:db8:5::10"
	uplink     = 0 // networks of the site, by number
	serving    = 1
	back       = 2
)

// site is a user who is the backbone as well, a director, room for two more and two real servers on three networks. Each is a namespace.
type site struct {
	t     *testing.T
	names map[string]string // of namespaces
	dir   string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, names: map[string]string{}, dir: t.TempDir()}
	for _, n := range []string{"switch", "user", "dir", "dir2", "dir3", "rs1", "rs2"} {
		s.names[n] = fmt.Sprintf("bg%d%s", os.Getpid(), n)
		s.ip("netns", "add", s.names[n])
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", s.names[n]).Run() })
		for _, key := range []string{"net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"} {
			s.exec(n, "sysctl", "-qw", key)
		}
		s.ip("-n", s.names[n], "link", "set", "lo", "up")
	}
	for i := range 3 {
		s.ip("-n", s.names["switch"], "link", "add", fmt.Sprintf("br%d", i), "type", "bridge")
		s.ip("-n", s.names["switch"], "link", "set", fmt.Sprintf("br%d", i), "up")
	}
	s.plug("user", "front", uplink)
	s.plug("user", "back", back)
	s.plug("dir", "eth0", uplink)
	s.plug("dir", "eth1", serving)
	for i, rs := range []string{"rs1", "rs2"} {
		s.plug(rs, "eth0", back)
		s.plug(rs, "eth1", serving)
		s.converge(rs, s.realServer(rs, 21+i))
	}
	for dev, n := range map[string]int{"front": uplink, "back": back} {
		s.ip("-n", s.names["user"], "addr", "add", fmt.Sprintf("10.%d.0.1/24", n), "dev", dev)
		s.ip("-n", s.names["user"], "addr", "add", fmt.Sprintf("2001:db8:%d::1/64", n), "dev", dev)
	}
	s.ip("-n", s.names["user"], "route", "add", vip4+"/32", "via", "10.0.0.11")
	s.ip("-n", s.names["user"], "route", "add", vip6+"/128", "via", "2001:db8::11")
	return s
}

func (s *site) ip(args ...string) string { s.t.Helper(); return s.command("ip", args...) }

func (s *site) exec(ns string, args ...string) string {
	s.t.Helper()
	return s.command("ip", append([]string{"netns", "exec", s.names[ns]}, args...)...)
}

func (s *site) command(name string, args ...string) string {
	s.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// plug gives a namespace an interface on one of the networks.
func (s *site) plug(ns, dev string, network int) {
	s.t.Helper()
	port := fmt.Sprintf("%s.%d", ns, network)
	s.ip("-n", s.names["switch"], "link", "add", port, "type", "veth", "peer", "name", dev, "netns", s.names[ns])
	s.ip("-n", s.names["switch"], "link", "set", port, "master", fmt.Sprintf("br%d", network), "up")
	s.ip("-n", s.names[ns], "link", "set", dev, "up")
}

func iface(name string, network, host int) policy.Interface {
	return policy.Interface{Name: name, Addresses: []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.%d.0.%d/24", network, host)),
		netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::%d/64", network, host)),
	}}
}

func vips() []policy.VIP {
	return []policy.VIP{{Address: netip.MustParseAddr(vip4)}, {Address: netip.MustParseAddr(vip6)}}
}

func (s *site) realServer(name string, host int) policy.Inside {
	return policy.Inside{
		Hostname: name, VIPs: vips(), Interfaces: []policy.Interface{iface("eth0", back, host), iface("eth1", serving, host)},
		Routes: []policy.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.2.0.1"), Interface: "eth0"},
			{Destination: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8:2::1"), Interface: "eth0"},
		},
		Sysctls: []policy.Sysctl{{Key: "net/ipv4/conf/all/arp_ignore", Value: "1"}, {Key: "net/ipv4/conf/all/arp_announce", Value: "2"}, {Key: "net/ipv4/conf/eth1/rp_filter", Value: "0"}},
	}
}

func (s *site) converge(ns string, want policy.Inside) {
	s.t.Helper()
	path := "/run/netns/" + s.names[ns]
	have, err := inside.Observe(s.t.Context(), path, want)
	if err != nil {
		s.t.Fatal(err)
	}
	steps := inside.Plan(want, have)
	for _, step := range steps {
		if step.Verb == plan.Blocked {
			s.t.Fatal(step)
		}
	}
	if err := inside.Apply(s.t.Context(), path, steps); err != nil {
		s.t.Fatal(err)
	}
}

// start runs this program as part in ns. The caller ends it.
func (s *site) start(ns, part string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", s.names[ns], os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), "BLADEGUEST_TEST_PART="+part)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (s *site) socket() string { return filepath.Join(s.dir, "guest.sock") }

func (s *site) startGuest() *exec.Cmd {
	s.t.Helper()
	return s.start("dir", "guest", "--state", filepath.Join(s.dir, "state.json"), "--listen", "unix:"+s.socket(), "--run", s.dir)
}

// dial waits for bladeguest and greets it.
func (s *site) dial() *channel.Client {
	s.t.Helper()
	var c *channel.Client
	s.until(time.Minute, "bladeguest answers", func() bool {
		conn, err := net.Dial("unix", s.socket())
		if err != nil {
			return false
		}
		c, err = channel.NewClient(s.t.Context(), conn, "test")
		return err == nil
	})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) until(limit time.Duration, what string, holds func() bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			s.t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// ask fetches from both VIPs, n times each, and returns the answers' names by count.
func (s *site) ask(n int) map[string]int {
	s.t.Helper()
	var urls []string
	for range n {
		urls = append(urls, "http://"+vip4+"/", "http://["+vip6+"]/")
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", s.names["user"], os.Args[0]}, urls...)...)
	cmd.Env = append(os.Environ(), "BLADEGUEST_TEST_PART=user")
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatal(err)
	}
	count := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		count[lines.Text()]++
	}
	return count
}

func (s *site) state() channel.Apply {
	a := channel.Apply{Revision: "one", Guest: "dir"}
	a.Inside = policy.Inside{
		Hostname: "dir", VIPs: vips(), Interfaces: []policy.Interface{iface("eth0", uplink, 11), iface("eth1", serving, 11)},
		Sysctls: []policy.Sysctl{{Key: "net/ipv4/ip_forward", Value: "0"}, {Key: "net/ipv4/conf/eth1/rp_filter", Value: "0"}},
	}
	a.Balancer.Sysctls = []policy.Sysctl{{Key: "net/ipv4/vs/sloppy_tcp", Value: "1"}, {Key: "net/ipv4/vs/schedule_icmp", Value: "1"}}
	checks := map[string]bool{}
	for i, vip := range []string{vip4, vip6} {
		v := policy.VirtualService{Service: "www", VIP: netip.MustParseAddr(vip), Protocol: "tcp", Port: 80, Scheduler: "rr", Mode: "spread", Quorum: 1}
		for j, rs := range []string{"rs1", "rs2"} {
			address := iface("", serving, 21+j).Addresses[i].Addr()
			id := "http/" + netip.AddrPortFrom(address, 80).String()
			v.Destinations = append(v.Destinations, policy.Destination{Guest: policy.GuestName(rs), Address: address, Port: 80, Weight: 100, Check: id})
			if !checks[id] {
				checks[id] = true
				a.Balancer.Checks = append(a.Balancer.Checks, policy.Check{
					ID: id, Guest: policy.GuestName(rs), Kind: "http", Address: address, Port: 80, Path: "/", Status: 200,
					Interval: time.Second, Timeout: 900 * time.Millisecond, Rise: 2, Fall: 2,
				})
			}
		}
		a.Balancer.Services = append(a.Balancer.Services, v)
	}
	return a
}

func (s *site) status(c *channel.Client) channel.Status {
	s.t.Helper()
	st, err := c.Status(s.t.Context(), channel.Query{})
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// up counts the destinations that are up, over both families.
func up(s channel.Status) int {
	n := 0
	for _, v := range s.Services {
		for _, d := range v.Destinations {
			if d.Up {
				n++
			}
		}
	}
	return n
}

// table is what ipvsadm says of the director: the kernel's word without ours.
func (s *site) table() []string {
	s.t.Helper()
	lines := strings.Split(strings.TrimSpace(s.exec("dir", "ipvsadm", "-S", "-n")), "\n")
	slices.Sort(lines)
	return lines
}

// TestKernelDirectorServes follows users' requests through a director: from nothing to both families answered by both real
// servers from the VIP, through the death of one and of both, the death of bladeguest, and back.
func TestKernelDirectorServes(t *testing.T) {
	s := newSite(t)
	servers := map[string]*exec.Cmd{"rs1": s.start("rs1", "server", "rs1"), "rs2": s.start("rs2", "server", "rs2")}
	guest := s.startGuest()
	c := s.dial()
	began := time.Now()
	if _, err := c.Apply(t.Context(), s.state()); err != nil {
		t.Fatal(err)
	}
	t.Logf("applied in %s", time.Since(began))
	took := s.until(20*time.Second, "all are up and announced", func() bool {
		st := s.status(c)
		return up(st) == 4 && st.VIPs[0].Up && st.VIPs[1].Up
	})
	t.Logf("all up %s after the apply", took)
	before := s.table()
	if got := s.ask(4); got["rs1"] != 4 || got["rs2"] != 4 {
		t.Errorf("answers %v, want four from each", got)
	}

	end(servers["rs1"])
	took = s.until(10*time.Second, "rs1 is out", func() bool { return up(s.status(c)) == 2 })
	t.Logf("rs1 out of rotation %s after its death", took)
	if got := s.ask(4); got["rs2"] != 8 {
		t.Errorf("answers %v, want all from rs2", got)
	}
	end(servers["rs2"])
	took = s.until(10*time.Second, "VIPs are withdrawn", func() bool {
		return !strings.Contains(s.ip("-n", s.names["dir"], "addr", "show", "dev", "lo"), vip4)
	})
	t.Logf("VIPs withdrawn %s after the last one's death", took)
	servers["rs1"], servers["rs2"] = s.start("rs1", "server", "rs1"), s.start("rs2", "server", "rs2")
	s.until(20*time.Second, "all are up again", func() bool { st := s.status(c); return up(st) == 4 && st.VIPs[0].Up })
	if got := s.ask(4); got["rs1"] != 4 || got["rs2"] != 4 {
		t.Errorf("answers %v, want four from each", got)
	}
	// A machine that stood still for two seconds has failed its checks, and answers the next ones.
	s.until(20*time.Second, "the table is as it was", func() bool { return slices.Equal(s.table(), before) })

	end(guest)
	if got := s.table(); !slices.Equal(got, before) {
		t.Errorf("table without bladeguest %q, want %q", got, before)
	}
	if got := s.ask(2); got["rs1"]+got["rs2"] != 4 {
		t.Errorf("answers without bladeguest %v", got)
	}
	guest = s.startGuest()
	c = s.dial()
	for range 40 { // every check has answered meanwhile
		if got := s.table(); !slices.Equal(got, before) {
			t.Fatalf("table after a restart %q, want %q", got, before)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if st := s.status(c); st.Revision != "one" || st.Error != "" || up(st) != 4 {
		t.Errorf("status after a restart %+v", st)
	}
	if err := c.Shutdown(t.Context(), channel.Shutdown{}); err != nil {
		t.Error(err)
	}
	_ = guest.Wait()
	if code := guest.ProcessState.ExitCode(); code != exitPowerOff {
		t.Errorf("exit code %d, want %d", code, exitPowerOff)
	}
}

// TestKernelForeignChanges holds that what others do to the table and the loopback is undone.
func TestKernelForeignChanges(t *testing.T) {
	s := newSite(t)
	s.start("rs1", "server", "rs1")
	s.start("rs2", "server", "rs2")
	s.startGuest()
	c := s.dial()
	if _, err := c.Apply(t.Context(), s.state()); err != nil {
		t.Fatal(err)
	}
	s.until(20*time.Second, "all are up", func() bool { st := s.status(c); return up(st) == 4 && st.VIPs[0].Up && st.VIPs[1].Up })
	want := s.table()
	s.exec("dir", "ipvsadm", "-C")
	took := s.until(15*time.Second, "the table is back", func() bool { return slices.Equal(s.table(), want) })
	t.Logf("table back %s after a flush", took)
	s.ip("-n", s.names["dir"], "addr", "flush", "dev", "lo")
	took = s.until(5*time.Second, "the VIPs are back", func() bool {
		show := s.ip("-n", s.names["dir"], "addr", "show", "dev", "lo")
		return strings.Contains(show, vip4) && strings.Contains(show, vip6)
	})
	t.Logf("VIPs back %s after a flush", took)
}

// TestKernelInit runs init in a process namespace of its own: a worker that is killed or stopped is started again, orphans are
// collected, and SIGTERM ends it all.
func TestKernelInit(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("unshare", "-pfmn", "--mount-proc", "--kill-child", os.Args[0], "--state", filepath.Join(dir, "state.json"), "--listen", "unix:"+socket, "--run", dir)
	cmd.Env = append(os.Environ(), "BLADEGUEST_TEST_PART=init")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	s := &site{t: t, dir: dir}
	answers := func() (up time.Duration) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return 0
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := channel.NewClient(ctx, conn, "test")
		if err != nil {
			return 0
		}
		st, err := c.Status(ctx, channel.Query{})
		if err != nil {
			return 0
		}
		return st.Uptime
	}
	s.until(time.Minute, "the worker answers", func() bool { return answers() > 0 })
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		old := workerOf(t, cmd.Process.Pid)
		if err := syscall.Kill(old, sig); err != nil {
			t.Fatal(err)
		}
		took := s.until(time.Minute, "another worker answers", func() bool { return workerOf(t, cmd.Process.Pid) != old && answers() > 0 })
		t.Logf("another worker answers %s after %s", took, sig)
	}
	init := childrenOf(t, cmd.Process.Pid)
	if len(init) != 1 {
		t.Fatalf("children of unshare: %v", init)
	}
	if err := syscall.Kill(init[0], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("init does not end")
	}
}

// workerOf is init's one child that is alive; init is the one child of unshare. 0: none.
func workerOf(t *testing.T, unshare int) int {
	t.Helper()
	for _, init := range childrenOf(t, unshare) {
		if workers := childrenOf(t, init); len(workers) > 0 {
			return workers[0]
		}
	}
	return 0
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for _, f := range strings.Fields(string(data)) {
			var n int
			if _, err := fmt.Sscan(f, &n); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}
