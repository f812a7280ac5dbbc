//go:build kernel

package reach

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// scene is a director and a real server, their eth0 and their eth1 joined by a cable each.
type scene struct {
	t                *testing.T
	director, server *traffic.Namespace
	mac              policy.MAC // of the server's eth1
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t}
	for _, n := range []**traffic.Namespace{&s.director, &s.server} {
		var err error
		if *n, err = traffic.NewNamespace(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*n).Close() })
	}
	other, err := os.Open(s.server.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.in(s.director, func() error {
		for _, name := range []string{"eth0", "eth1"} {
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(int(other.Fd()))}
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
		}
		return nil
	})
	for i, n := range []*traffic.Namespace{s.director, s.server} {
		for link, addrs := range map[string][]string{
			"lo":   {"127.0.0.1/8"},
			"eth0": {fmt.Sprintf("192.0.2.%d/24", i+2), fmt.Sprintf("2001:db8::%d/64", i+2)},
			"eth1": {fmt.Sprintf("10.0.0.%d/24", i+2), fmt.Sprintf("2001:db8:1::%d/64", i+2)},
		} {
			s.set(n, "ipv6/conf/"+link+"/disable_ipv6", "0")
			s.set(n, "ipv4/conf/"+link+"/rp_filter", "0")
			s.in(n, func() error { return traffic.Addressed(link, addrs...) })
		}
		s.set(n, "ipv4/conf/all/rp_filter", "0")
	}
	s.in(s.server, func() error {
		l, err := netlink.LinkByName("eth1")
		if err == nil {
			copy(s.mac[:], l.Attrs().HardwareAddr)
		}
		return err
	})
	return s
}

func (s *scene) in(n *traffic.Namespace, do func() error) {
	s.t.Helper()
	if err := n.Do(do); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) set(n *traffic.Namespace, key, value string) {
	s.t.Helper()
	if err := n.Set(key, value); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) vips(n *traffic.Namespace, there bool) {
	s.t.Helper()
	s.in(n, func() error {
		if there {
			return traffic.Addressed("lo", vip4.Addr().String()+"/32", vip6.Addr().String()+"/128")
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, vip := range []netip.Addr{vip4.Addr(), vip6.Addr()} {
			a, err := netlink.ParseAddr(netip.PrefixFrom(vip, vip.BitLen()).String())
			if err != nil {
				return err
			}
			if err := netlink.AddrDel(lo, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// resets is how many connections the namespace's kernel has reset by itself (OutRsts of /proc/net/snmp).
func (s *scene) resets(n *traffic.Namespace) int {
	s.t.Helper()
	out := -1
	s.in(n, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		var names []string
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) == 0 || f[0] != "Tcp:" {
				continue
			}
			for i, name := range names {
				if name == "OutRsts" {
					out, _ = strconv.Atoi(f[i])
				}
			}
			names = f
		}
		return err
	})
	return out
}

// TestTheWireBetweenTwoKernels probes a real server's kernel of both families, with the VIPs on the director's own loopback and without: it is
// heard while its VIPs are on its loopback, whether its port listens or not, no connection is left at it, and the director's kernel resets
// nothing by itself.
func TestTheWireBetweenTwoKernels(t *testing.T) {
	s := newScene(t)
	s.vips(s.server, true)
	s.in(s.server, func() error {
		l, err := net.Listen("tcp", ":443")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	p := New(slog.New(slog.NewTextHandler(t.Output(), nil)), Links("eth1", "eth0"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.director.Do(func() error { p.Run(ctx, func() {}); return nil })
	}()
	defer func() { cancel(); <-done }()
	var targets []Target
	for _, vip := range []netip.AddrPort{vip4, vip6} {
		for _, port := range []uint16{443, 444} {
			targets = append(targets, Target{
				Key: Key{Guest: "rs", VIP: netip.AddrPortFrom(vip.Addr(), port)}, MAC: s.mac, Interval: 200 * time.Millisecond, Timeout: 200 * time.Millisecond, Rise: 1, Fall: 2,
			})
		}
	}
	list := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
	await := func(what string, want health.State) {
		t.Helper()
		p.Want(list, nil) // begins anew
		p.Want(list, targets)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			n, f := 0, p.Findings()
			for _, x := range f {
				if x.State == want {
					n++
				}
			}
			if n == len(targets) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v, want all %s", what, f, want)
			}
		}
	}
	before := s.resets(s.director)
	await("the director has no VIP", health.Up)
	s.vips(s.director, true)
	await("the director has the VIPs", health.Up)
	s.vips(s.server, false)
	await("the server has lost them", health.Down)
	s.vips(s.server, true)
	await("the server has them again", health.Up)
	if n := s.resets(s.director); n != before {
		t.Errorf("the director's kernel reset %d connections by itself", n-before)
	}
	s.in(s.server, func() error {
		for _, file := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); len(f) > 3 && f[3] == "03" { // SYN_RECV (include/net/tcp_states.h)
					t.Errorf("left at the server: %s", line)
				}
			}
		}
		return nil
	})
}
