//go:build kernel

package announce

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/router"
)

const programs = "/usr/lib/frr"

// TestMain turns the test's own program into a director's announcing half when it is asked to: namespaces belong to threads, so
// a supervisor that runs inside one is a process of its own. It says how it is on every line of its output.
func TestMain(m *testing.M) {
	if os.Getenv("ANNOUNCE_TEST_GUARD") != "" {
		Guard(os.Stdin)
		return
	}
	name := os.Getenv("ANNOUNCE_TEST_SPEC")
	if name == "" {
		os.Exit(m.Run())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s := New(Config{
		Log: log, Programs: programs, Run: os.Getenv("ANNOUNCE_TEST_RUN"), User: "frr", Guard: []string{"env", "ANNOUNCE_TEST_GUARD=1", os.Args[0]},
		Keepalived: keepalivedProgram, Pair: os.Getenv("ANNOUNCE_TEST_RUN"),
	})
	s.Want(liveSpecs()[name])
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	go func() {
		// A line is another list of VIPs, or behind "up" of those that are on the loopback; the end of the input is the end.
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			text, up := strings.CutPrefix(lines.Text(), "up")
			var vips []netip.Addr
			for _, v := range strings.Fields(text) {
				vips = append(vips, netip.MustParseAddr(v))
			}
			if up {
				s.Up(vips)
				continue
			}
			spec := liveSpecs()[name]
			spec.VIPs = vips
			s.Want(spec)
		}
		cancel()
	}()
	for ctx.Err() == nil {
		_ = json.NewEncoder(os.Stdout).Encode(s.Observe(ctx))
		time.Sleep(100 * time.Millisecond)
	}
	<-done
}

// The live tests' addresses, on the one link between the director and its router.
const (
	router4, director4 = "192.0.2.1", "192.0.2.2"
	router6, director6 = "2001:db8:111::1", "2001:db8:111::2"
	vip4, vip6         = "203.0.113.10", "2001:db8:5::10"
)

func liveSpecs() map[string]Spec {
	a := netip.MustParseAddr
	base := policy.Announce{RouterID: a(director4), Routers: []netip.Addr{a(router4), a(router6)}}
	ospf, bgp := base, base
	ospf.OSPF = &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second, BFD: policy.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}}
	bgp.BGP = &policy.BGP{AS: 64512, PeerAS: 64500, BFD: policy.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}}
	vips := []netip.Addr{a(vip4), a(vip6)}
	dead, hold := base, base
	dead.OSPF = &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}
	hold.BGP = &policy.BGP{AS: 64512, PeerAS: 64500}
	first, second := policy.Announce{RouterID: a(director4)}, policy.Announce{RouterID: a(second4)}
	first.VRRP, second.VRRP = &policy.VRRP{ID: 40, Priority: 150, Interval: 200 * time.Millisecond}, &policy.VRRP{ID: 40, Priority: 100, Interval: 200 * time.Millisecond}
	floating := []netip.Addr{a(float4), a(float6)}
	return map[string]Spec{
		"vrrp-first":  {Hostname: "dir-1", Announce: first, VIPs: floating},
		"vrrp-second": {Hostname: "dir-2", Announce: second, VIPs: floating},

		"ospf-dead": {Hostname: "dir", Announce: dead, VIPs: vips}, // routers are lost after OSPF's dead interval
		"bgp-hold":  {Hostname: "dir", Announce: hold, VIPs: vips}, // or BGP's hold time
		"ospf":      {Hostname: "dir", Announce: ospf, VIPs: vips},
		"bgp":       {Hostname: "dir", Announce: bgp, VIPs: vips},
	}
}

// TestKernelDaemonsAcceptEveryConfiguration lets each daemon read what is rendered for it. The dry run's exit status is 0
// whatever it read, so its complaints are looked for; a line that must be refused shows that they would be found.
func TestKernelDaemonsAcceptEveryConfiguration(t *testing.T) {
	all := specs()
	for name, s := range liveSpecs() {
		all["live "+name] = s
	}
	refuses := map[string]bool{}
	for name, s := range all {
		for daemon, text := range Render(s) {
			if said := dryRun(t, daemon, text); said != "" {
				t.Errorf("%s: %s says %s", name, daemon, said)
			}
			if refuses[daemon] {
				continue
			}
			refuses[daemon] = true
			if said := dryRun(t, daemon, text+"no such thing as this\n"); said == "" {
				t.Errorf("%s: %s takes a bad line", name, daemon)
			}
		}
	}
	if len(refuses) != 6 {
		t.Errorf("daemons met: %v", refuses)
	}
}

func dryRun(t *testing.T, daemon, text string) string {
	t.Helper()
	file := filepath.Join(openDir(t), daemon+".conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if daemon == keepalived { // whose exit status is 0 only where it has no complaint, not even that there is no eth0 here
		out, _ := exec.Command(keepalivedProgram, "--config-test", "--vrrp", "-f", file).CombinedOutput()
		var bad []string
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, " doesn't exist") && !strings.Contains(line, "Non-existent interface") {
				bad = append(bad, strings.TrimSpace(line))
			}
		}
		return strings.Join(bad, "; ")
	}
	out, err := exec.Command(filepath.Join(programs, daemon), "-C", "-f", file).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	var bad []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "config line") || strings.Contains(line, "can't open") {
			bad = append(bad, strings.TrimSpace(line))
		}
	}
	return strings.Join(bad, "; ")
}

// openDir is a temporary directory that the daemons' own user may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rig is a director's and a router's namespace with one link between them, and the router's daemons.
type rig struct {
	t        *testing.T
	dir, rtr string
	run      string
}

func newRig(t *testing.T, protocol string, bfd bool) *rig {
	t.Helper()
	r := &rig{t: t, dir: fmt.Sprintf("an%dd", os.Getpid()), rtr: fmt.Sprintf("an%dr", os.Getpid()), run: openDir(t)}
	for _, ns := range []string{r.dir, r.rtr} {
		r.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		for _, key := range []string{"all", "default"} {
			sysctl(t, ns, "net.ipv6.conf."+key+".accept_dad=0")
		}
		r.ip("-n", ns, "link", "set", "lo", "up")
	}
	r.ip("-n", r.dir, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", r.rtr)
	for ns, addrs := range map[string][]string{r.dir: {director4 + "/28", director6 + "/64"}, r.rtr: {router4 + "/28", router6 + "/64"}} {
		for _, a := range addrs {
			r.ip("-n", ns, "addr", "add", a, "dev", "eth0")
		}
		r.ip("-n", ns, "link", "set", "eth0", "up")
	}
	link := router.Link{Interface: "eth0", Router4: router4, Directors: []string{director4, director6}}
	if bfd {
		link.BFD = router.UsualBFD
	}
	link.Start(t, r.rtr, filepath.Join(r.run, "router"), protocol)
	return r
}

func (r *rig) ip(args ...string) string {
	r.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

func sysctl(t *testing.T, ns, setting string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", ns, "sysctl", "-qw", setting).CombinedOutput(); err != nil {
		t.Fatalf("sysctl %s: %v: %s", setting, err, out)
	}
}

// director starts a supervisor in the director's namespace. Its last word is in status.
type director struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	status chan channel.AnnounceStatus
	last   channel.AnnounceStatus
}

func (r *rig) startDirector(spec string) *director {
	r.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", r.dir, os.Args[0])
	cmd.Env = append(os.Environ(), "ANNOUNCE_TEST_SPEC="+spec, "ANNOUNCE_TEST_RUN="+filepath.Join(r.run, "director"))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	d := &director{cmd: cmd, stdin: stdin, status: make(chan channel.AnnounceStatus, 1)}
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var s channel.AnnounceStatus
			if json.Unmarshal(lines.Bytes(), &s) != nil {
				continue
			}
			select {
			case <-d.status:
			default:
			}
			d.status <- s
		}
	}()
	r.t.Cleanup(func() {
		_ = stdin.Close()
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
	})
	return d
}

// routes are the router's routes learned from the director, sorted.
func (r *rig) routes(protocol string) []string {
	r.t.Helper()
	return router.Routes(r.t, r.rtr, protocol)
}

// until waits for what to hold and returns how long that took.
func (r *rig) until(limit time.Duration, what string, holds func() bool) time.Duration {
	r.t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			r.t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

func (r *rig) addVIPs()    { r.vips("add") }
func (r *rig) removeVIPs() { r.vips("del") }

func (r *rig) vips(verb string) {
	r.t.Helper()
	r.ip("-n", r.dir, "addr", verb, vip4+"/32", "dev", "lo")
	if verb == "add" {
		r.ip("-n", r.dir, "addr", verb, vip6+"/128", "dev", "lo", "preferred_lft", "0", "nodad")
	} else {
		r.ip("-n", r.dir, "addr", verb, vip6+"/128", "dev", "lo")
	}
}

// TestKernelAnnounces shows the whole life of a VIP at a real neighbour: it comes with its address on the loopback and goes with
// it; nothing else leaves, nothing that the neighbour says enters the director's routes; and it goes when the supervisor is
// killed.
func TestKernelAnnounces(t *testing.T) {
	for _, protocol := range []string{"ospf", "bgp"} {
		t.Run(protocol, func(t *testing.T) {
			r := newRig(t, protocol, true)
			r.ip("-n", r.dir, "addr", "add", "10.99.0.1/32", "dev", "lo")
			r.ip("-n", r.dir, "addr", "add", "2001:db8:99::1/128", "dev", "lo")
			r.ip("-n", r.dir, "link", "add", "eth1", "type", "dummy")
			r.ip("-n", r.dir, "addr", "add", "10.98.0.1/24", "dev", "eth1")
			r.ip("-n", r.dir, "link", "set", "eth1", "up")
			r.ip("-n", r.dir, "route", "add", "10.97.0.0/16", "dev", "eth1")
			r.ip("-n", r.dir, "route", "add", "2001:db8:97::/48", "dev", "eth1")
			d := r.startDirector(protocol)
			var last channel.AnnounceStatus
			took := r.until(60*time.Second, "full adjacencies", func() bool {
				select {
				case last = <-d.status:
				default:
				}
				return last.Full4 == 1 && last.Full6 == 1
			})
			t.Logf("adjacencies full after %s; %+v", took, last)
			if last.Error != "" || last.Protocol != protocol {
				t.Errorf("status %+v", last)
			}
			if got := r.routes(protocol); len(got) != 0 {
				t.Errorf("routes before there is a VIP: %v", got)
			}
			want := []string{vip6, vip4}
			slices.Sort(want)
			r.addVIPs()
			first := r.until(20*time.Second, "a VIP at the router", func() bool { return len(r.routes(protocol)) > 0 })
			t.Logf("first VIP %v at the router %s after it is on the loopback", r.routes(protocol), first)
			took = first + r.until(20*time.Second, "VIPs at the router", func() bool { return slices.Equal(r.routes(protocol), want) })
			t.Logf("VIPs at the router %s after they are on the loopback", took)
			r.removeVIPs()
			took = r.until(5*time.Second, "VIPs gone", func() bool { return len(r.routes(protocol)) == 0 })
			t.Logf("VIPs gone %s after they left the loopback", took)
			r.addVIPs()
			took = r.until(20*time.Second, "VIPs back", func() bool { return slices.Equal(r.routes(protocol), want) })
			t.Logf("VIPs back %s after they are on the loopback again", took)
			testLiveChange(t, r, d, protocol)
			if learned := r.ip("-n", r.dir, "route", "show", "default") + r.ip("-6", "-n", r.dir, "route", "show", "default"); learned != "" {
				t.Errorf("the neighbour's default route is in the director's table: %s", learned)
			}
			if err := d.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			took = r.until(10*time.Second, "VIPs gone after SIGKILL", func() bool { return len(r.routes(protocol)) == 0 })
			t.Logf("VIPs gone %s after the supervisor was killed", took)
			r.until(5*time.Second, "daemons ended", func() bool {
				out, err := exec.Command("ip", "netns", "pids", r.dir).Output()
				return err == nil && len(strings.TrimSpace(string(out))) == 0
			})
		})
	}
}

// testLiveChange shows that a VIP which joins or leaves the policy costs no adjacency.
func testLiveChange(t *testing.T, r *rig, d *director, protocol string) {
	t.Helper()
	const more = "203.0.113.99"
	uptime := func() string { // the daemons' process identifiers: none of them is another one
		var all []string
		files, err := filepath.Glob(filepath.Join(r.run, "director", "*.pid"))
		if err != nil || len(files) == 0 {
			t.Fatalf("pid files: %v, %v", files, err)
		}
		for _, f := range files {
			pid, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, filepath.Base(f)+" "+strings.TrimSpace(string(pid)))
		}
		return strings.Join(all, ", ")
	}
	before := uptime()
	r.ip("-n", r.dir, "addr", "add", more+"/32", "dev", "lo")
	time.Sleep(time.Second)
	if slices.Contains(r.routes(protocol), more) {
		t.Error("an address that is no VIP yet is at the router")
	}
	if _, err := fmt.Fprintln(d.stdin, vip4, vip6, more); err != nil {
		t.Fatal(err)
	}
	took := r.until(20*time.Second, "the new VIP at the router", func() bool { return slices.Contains(r.routes(protocol), more) })
	t.Logf("new VIP at the router %s after the policy has it", took)
	if _, err := fmt.Fprintln(d.stdin, vip4, vip6); err != nil {
		t.Fatal(err)
	}
	took = r.until(20*time.Second, "the former VIP gone", func() bool { return !slices.Contains(r.routes(protocol), more) })
	t.Logf("former VIP gone %s after it left the policy, still on the loopback", took)
	if after := uptime(); after != before {
		t.Errorf("daemons before %s, after %s", before, after)
	}
	if got := r.routes(protocol); len(got) != 2 {
		t.Errorf("routes %v", got)
	}
}

// TestKernelRestartsDaemon shows that a daemon that dies comes back and is counted.
func TestKernelRestartsDaemon(t *testing.T) {
	r := newRig(t, "ospf", true)
	d := r.startDirector("ospf")
	alive := func(restarts int) func() bool {
		var last channel.AnnounceStatus
		return func() bool {
			select {
			case last = <-d.status:
			default:
			}
			i := slices.IndexFunc(last.Daemons, func(x channel.DaemonStatus) bool { return x.Name == "ospfd" })
			return i >= 0 && last.Daemons[i].Alive && last.Daemons[i].Restarts == restarts && last.Full4 == 1
		}
	}
	r.until(60*time.Second, "ospfd alive", alive(0))
	pid, err := os.ReadFile(filepath.Join(r.run, "director", "ospfd.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-KILL", strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	took := r.until(60*time.Second, "ospfd back", alive(1))
	t.Logf("full again %s after ospfd was killed", took)
}
