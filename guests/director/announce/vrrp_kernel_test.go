//go:build kernel

package announce

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	keepalivedProgram = "/usr/sbin/keepalived"

	second4, second6         = "192.0.2.3", "2001:db8:111::3"
	float4, float6, another4 = "192.0.2.10", "2001:db8:111::10", "192.0.2.11"
)

// pairRig is two directors and a neighbour on one bridge.
type pairRig struct {
	*rig
	one, two           *rig // the directors' own
	first, second      *director
	holds1, holds2     []netip.Addr // what each has, by its last word
	neighbour, network string
}

func newPairRig(t *testing.T) *pairRig {
	t.Helper()
	name := func(s string) string { return fmt.Sprintf("vr%d%s", os.Getpid(), s) }
	p := &pairRig{
		rig: &rig{t: t, run: openDir(t)}, neighbour: name("n"), network: name("s"),
		one: &rig{t: t, dir: name("a"), run: openDir(t)}, two: &rig{t: t, dir: name("b"), run: openDir(t)},
	}
	for _, ns := range []string{p.network, p.neighbour, p.one.dir, p.two.dir} {
		p.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		for _, key := range []string{"net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"} {
			sysctl(t, ns, key)
		}
		p.ip("-n", ns, "link", "set", "lo", "up")
	}
	p.ip("-n", p.network, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	p.ip("-n", p.network, "link", "set", "br0", "up")
	for i, ns := range []string{p.neighbour, p.one.dir, p.two.dir} {
		port := fmt.Sprintf("port%d", i)
		p.ip("-n", p.network, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		p.ip("-n", p.network, "link", "set", port, "master", "br0", "up")
		p.ip("-n", ns, "addr", "add", []string{router4, director4, second4}[i]+"/28", "dev", "eth0")
		p.ip("-n", ns, "addr", "add", []string{router6, director6, second6}[i]+"/64", "dev", "eth0")
		p.ip("-n", ns, "link", "set", "eth0", "up")
	}
	p.first, p.second = p.one.startDirector("vrrp-first"), p.two.startDirector("vrrp-second")
	return p
}

// have says whether the directors have these VIPs by their own words and by the kernel's.
func (p *pairRig) have(first, second string) func() bool {
	return func() bool {
		for _, x := range []struct {
			r     *rig
			d     *director
			holds *[]netip.Addr
			want  string
		}{{p.one, p.first, &p.holds1, first}, {p.two, p.second, &p.holds2, second}} {
			select {
			case x.d.last = <-x.d.status:
			default:
			}
			*x.holds = x.d.last.Holds
			if floating(p.t, x.r.dir) != x.want || x.d.last.Protocol == "vrrp" && words(*x.holds) != x.want && !x.d.dead() {
				return false
			}
		}
		return true
	}
}

func (d *director) dead() bool { return d.cmd.ProcessState != nil }

func words(list []netip.Addr) string { return strings.Trim(fmt.Sprint(list), "[]") }

// floating lists the addresses of full length on eth0 of a namespace, by the kernel's own listing.
func floating(t *testing.T, ns string) string {
	t.Helper()
	out, err := exec.Command("ip", "-n", ns, "-o", "addr", "show", "dev", "eth0").CombinedOutput()
	if err != nil {
		t.Fatalf("list addresses: %v: %s", err, out)
	}
	var list []netip.Addr
	for _, word := range strings.Fields(string(out)) {
		if prefix, err := netip.ParsePrefix(word); err == nil && prefix.IsSingleIP() {
			list = append(list, prefix.Addr())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return words(list)
}

// reached says whether the neighbour gets an answer from a VIP, from which director's MAC.
func (p *pairRig) reached(vip, ns string) func() bool {
	return func() bool {
		ip := []string{"netns", "exec", p.neighbour, "ping", "-c1", "-W1", vip}
		if out, err := exec.Command("ip", ip...).CombinedOutput(); err != nil {
			p.t.Logf("ping %s: %v: %s", vip, err, out)
			return false
		}
		at := p.ip("-n", p.neighbour, "neigh", "show", vip)
		mac := strings.Fields(p.ip("-n", ns, "-o", "link", "show", "eth0"))
		return strings.Contains(at, mac[slices.Index(mac, "link/ether")+1])
	}
}

func (p *pairRig) up(d *director, vips ...string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(d.stdin, "up", strings.Join(vips, " ")); err != nil {
		p.t.Fatal(err)
	}
}

// TestKernelPair shows the life of a pair's VIPs: one director has them, in each family, as long as it may and lives; whatever ends or hangs, the
// other has them soon and the first one has not; and nobody has a VIP that neither may have.
func TestKernelPair(t *testing.T) {
	p := newPairRig(t)
	both := float4 + " " + float6
	time.Sleep(2 * time.Second)
	if !p.have("", "")() {
		t.Fatalf("before the loopback has VIPs: %v, %v", p.holds1, p.holds2)
	}
	p.up(p.second, float4, float6)
	took := p.until(20*time.Second, "the second one alone has the VIPs", p.have("", both))
	t.Logf("the second one alone has the VIPs after %s", took)
	p.up(p.first, float4, float6)
	took = p.until(20*time.Second, "the first one has the VIPs", p.have(both, ""))
	t.Logf("the first one has the VIPs %s after it may", took)
	for _, vip := range []string{float4, float6} {
		p.until(10*time.Second, vip+" answers", p.reached(vip, p.one.dir))
	}

	for _, r := range []*rig{p.one, p.two} { // without one it would be taken for hung, half a minute later
		p.until(20*time.Second, "a sign of life", func() bool {
			_, err := os.Stat(filepath.Join(r.run, "director", "keepalived.stats"))
			return err == nil
		})
	}

	p.up(p.first, float6)
	took = p.until(10*time.Second, "one VIP at each", p.have(float6, float4))
	t.Logf("a VIP that the first one lost is at the second after %s", took)
	p.until(10*time.Second, "it answers", p.reached(float4, p.two.dir))
	p.up(p.second, float6)
	took = p.until(10*time.Second, "nobody has a VIP that is on no loopback", p.have(float6, ""))
	t.Logf("and at nobody %s after the second one lost it too", took)
	p.up(p.first, float4, float6)
	p.up(p.second, float4, float6)
	p.until(20*time.Second, "the first one has both", p.have(both, ""))

	t.Run("another VIP", func(t *testing.T) { testPairGrows(t, p, both) })
	for _, h := range []struct {
		what   string
		file   string
		signal syscall.Signal
	}{
		{"its parent", "keepalived.pid", syscall.SIGKILL},
		{"it", "keepalived-vrrp.pid", syscall.SIGKILL},
		{"its parent", "keepalived.pid", syscall.SIGSTOP},
		{"it", "keepalived-vrrp.pid", syscall.SIGSTOP},
	} {
		pid := pidIn(filepath.Join(p.one.run, "director", h.file))
		if err := syscall.Kill(pid, h.signal); err != nil {
			t.Fatal(err)
		}
		gone := p.until(10*time.Second, "gone from the first", func() bool { return floating(t, p.one.dir) == "" })
		taken := gone + p.until(10*time.Second, "at the second", func() bool { return floating(t, p.two.dir) == both || floating(t, p.one.dir) == both })
		back := p.until(60*time.Second, "back at the first", p.have(both, ""))
		t.Logf("%s of %s: gone after %s, taken after %s, back %s later", h.signal, h.what, gone, taken, back)
	}
	if err := p.first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := p.until(10*time.Second, "gone from the first", func() bool { return floating(t, p.one.dir) == "" })
	taken := gone + p.until(10*time.Second, "at the second", func() bool { return floating(t, p.two.dir) == both })
	t.Logf("SIGKILL of the first one's supervisor: gone after %s, at the second after %s", gone, taken)
	p.until(10*time.Second, "daemons ended", func() bool {
		out, err := exec.Command("ip", "netns", "pids", p.one.dir).Output()
		return err == nil && len(strings.TrimSpace(string(out))) == 0
	})
}

// testPairGrows gives both directors another VIP and takes it away: the others stay where they are, all the time.
func testPairGrows(t *testing.T, p *pairRig, both string) {
	pid := pidIn(filepath.Join(p.one.run, "director", "keepalived-vrrp.pid"))
	stays := func(then func() bool) func() bool {
		return func() bool {
			if here := floating(t, p.one.dir); !strings.Contains(here, float4+" ") || !strings.HasSuffix(here, float6) {
				t.Errorf("the first one has %q", here)
			}
			return then()
		}
	}
	tell := func(vips ...string) {
		for _, d := range []*director{p.first, p.second} {
			if _, err := fmt.Fprintln(d.stdin, strings.Join(vips, " ")); err != nil {
				t.Fatal(err)
			}
			p.up(d, vips...)
		}
	}
	tell(float4, float6, another4)
	took := p.until(20*time.Second, "the new VIP", stays(p.have(float4+" "+another4+" "+float6, "")))
	t.Logf("a new VIP is there after %s", took)
	tell(float4, float6)
	took = p.until(20*time.Second, "the VIP gone", stays(p.have(both, "")))
	t.Logf("and gone after %s", took)
	if now := pidIn(filepath.Join(p.one.run, "director", "keepalived-vrrp.pid")); now != pid {
		t.Errorf("the daemon was started again: %d, was %d", now, pid)
	}
}
