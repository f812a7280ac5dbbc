//go:build kernel

package inside

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// countdown is a context that is cancelled after it was asked n times: Apply asks once before each step.
type countdown struct {
	context.Context
	left *int
}

func (c countdown) Err() error {
	*c.left--
	if *c.left < 0 {
		return context.Canceled
	}
	return nil
}

func after(n int) countdown { return countdown{context.Background(), &n} }

// TestFaultAfterEachStep stops after each step and demands that a retry converges at once.
func TestFaultAfterEachStep(t *testing.T) {
	nothing := policy.Inside{Hostname: "www-1", Interfaces: []policy.Interface{{Name: "eth0", MAC: mac0}, {Name: "eth1", MAC: mac1}}}
	for _, c := range []struct {
		name     string
		from, to policy.Inside
	}{{"from nothing", nothing, realServer()}, {"to nothing", realServer(), nothing}} {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				ns := newNamespace(t)
				addVeth(t, ns, "eth1", mac0) // the wrong way round: renames are steps too
				addVeth(t, ns, "eth0", mac1)
				if n%2 == 0 {
					mustConverge(t, ns, c.from)
				}
				steps := Plan(c.to, observeIn(t, ns, c.to))
				err := Apply(after(n), ns, steps)
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Fatalf("after %d steps: %v", n, err)
				}
				mustConverge(t, ns, c.to)
				if err == nil {
					t.Logf("%d steps", len(steps))
					return
				}
			}
		})
	}
}

// TestWalkKernel goes through random wishes on the kernel with a fault after a random step.
func TestWalkKernel(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 2))
		ns := newNamespace(t)
		addVeth(t, ns, "eth0", mac0)
		addVeth(t, ns, "eth1", mac1)
		if r.IntN(2) == 0 {
			write(t, ns, "net/ipv4/conf/all/promote_secondaries", "1")
		}
		for range 10 {
			want := randomInside(r)
			if err := Apply(after(r.IntN(12)), ns, Plan(want, observeIn(t, ns, want))); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			mustConverge(t, ns, want)
			checkSettled(t, want, observeIn(t, ns, want))
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

func write(t *testing.T, ns, key, value string) {
	t.Helper()
	if err := enter(ns, func() error { return os.WriteFile(sysctlPath(key), []byte(value), 0o644) }); err != nil {
		t.Fatal(err)
	}
}

func link(h *netlink.Handle, name string) netlink.Link {
	l, err := h.LinkByName(name)
	if err != nil {
		panic(err)
	}
	return l
}

func add(h *netlink.Handle, name, prefix string, f func(a *netlink.Addr)) error {
	a := &netlink.Addr{IPNet: encodePrefix(netip.MustParsePrefix(prefix))}
	if f != nil {
		f(a)
	}
	return h.AddrReplace(link(h, name), a)
}

func remove(h *netlink.Handle, name, prefix string) error {
	return h.AddrDel(link(h, name), &netlink.Addr{IPNet: encodePrefix(netip.MustParsePrefix(prefix))})
}

// TestRepair spoils one thing at a time, as root in the guest would, and demands that it is seen and repaired.
func TestRepair(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(h *netlink.Handle) error
	}{
		{"foreign addresses", func(h *netlink.Handle) error {
			return errors.Join(add(h, "lo", "203.0.113.99/32", nil), add(h, "lo", "2001:db8:5::99/128", nil),
				add(h, "eth0", "198.51.100.99/25", nil), add(h, "eth1", "2001:db8:120::99/64", nil))
		}},
		{"point-to-point address", func(h *netlink.Handle) error {
			return add(h, "eth0", "192.0.2.7/32", func(a *netlink.Addr) { a.Peer = encodePrefix(netip.MustParsePrefix("192.0.2.8/32")) })
		}},
		{"foreign first address", func(h *netlink.Handle) error {
			return errors.Join(remove(h, "eth0", "198.51.100.11/25"), add(h, "eth0", "198.51.100.99/25", nil), add(h, "eth0", "198.51.100.11/25", nil))
		}},
		{"wrong broadcast", func(h *netlink.Handle) error {
			return errors.Join(remove(h, "eth0", "198.51.100.11/25"), add(h, "eth0", "198.51.100.11/25", func(a *netlink.Addr) { a.Broadcast = net.IPv4(0, 0, 0, 255) }))
		}},
		{"no broadcast", func(h *netlink.Handle) error {
			return errors.Join(remove(h, "eth1", "10.12.1.11/22"), add(h, "eth1", "10.12.1.11/22", func(a *netlink.Addr) { a.Broadcast = net.IPv4zero }))
		}},
		{"VIP as a source address", func(h *netlink.Handle) error {
			forever := uint32(math.MaxUint32)
			return add(h, "lo", "2001:db8:5::10/128", func(a *netlink.Addr) { a.ValidLft, a.PreferedLft = int(forever), int(forever) })
		}},
		{"lifetime", func(h *netlink.Handle) error {
			return errors.Join(add(h, "lo", "203.0.113.10/32", func(a *netlink.Addr) { a.ValidLft, a.PreferedLft = 600, 300 }),
				add(h, "eth0", "2001:db8:130::11/64", func(a *netlink.Addr) { a.ValidLft, a.PreferedLft = 600, 300 }))
		}},
		{"VIPs gone", func(h *netlink.Handle) error {
			return errors.Join(remove(h, "lo", "203.0.113.10/32"), remove(h, "lo", "2001:db8:5::10/128"))
		}},
		{"eth0 down", func(h *netlink.Handle) error { return h.LinkSetDown(link(h, "eth0")) }},
		{"lo down", func(h *netlink.Handle) error { return h.LinkSetDown(link(h, "lo")) }},
		{"other default route", func(h *netlink.Handle) error {
			r := Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.12.0.1"), Link: link(h, "eth1").Attrs().Index, Protocol: 3}
			return h.RouteReplace(encodeRoute(r))
		}},
		{"one more static route", func(h *netlink.Handle) error {
			r := Route{Destination: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("10.12.0.1"), Link: link(h, "eth1").Attrs().Index, Protocol: protocolStatic}
			return h.RouteReplace(encodeRoute(r))
		}},
		{"share of the default route", func(h *netlink.Handle) error {
			r := encodeRoute(Route{Destination: netip.MustParsePrefix("::/0"), Metric: metric6, Via: netip.MustParseAddr("2001:db8:120::7"), Link: link(h, "eth1").Attrs().Index, Protocol: 3})
			return h.RouteAppend(r)
		}},
		{"no routes", func(h *netlink.Handle) error {
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				list, err := h.RouteListFiltered(family, &netlink.Route{Protocol: protocolStatic}, netlink.RT_FILTER_PROTOCOL)
				if err != nil {
					return err
				}
				for _, r := range list {
					if err := h.RouteDel(&r); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"renamed", func(h *netlink.Handle) error {
			l := link(h, "eth1")
			return errors.Join(h.LinkSetDown(l), h.LinkSetName(l, "wan"), h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "eth9"}))
		}},
		{"other MAC", func(h *netlink.Handle) error {
			return errors.Join(h.LinkSetHardwareAddr(link(h, "eth0"), net.HardwareAddr{2, 6, 6, 6, 6, 6}), h.LinkSetDown(link(h, "eth0")))
		}},
		{"sysctl", func(*netlink.Handle) error {
			return os.WriteFile(sysctlPath("net/ipv4/conf/all/arp_ignore"), []byte("0"), 0o644)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := newNamespace(t)
			addVeth(t, ns, "eth0", mac0)
			addVeth(t, ns, "eth1", mac1)
			want := realServer()
			mustConverge(t, ns, want)
			do(t, ns, c.spoil)
			if len(Plan(want, observeIn(t, ns, want))) == 0 {
				t.Fatal("the damage is not seen")
			}
			mustConverge(t, ns, want)
			checkSettled(t, want, observeIn(t, ns, want))
		})
	}
}

// TestForeignUntouched demands that other interfaces, link-local addresses and routes of others stay.
func TestForeignUntouched(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", mac0)
	addVeth(t, ns, "eth1", mac1)
	want := realServer()
	mustConverge(t, ns, want)
	do(t, ns, func(h *netlink.Handle) error {
		r := Route{Destination: netip.MustParsePrefix("192.0.2.0/24"), Metric: 20, Via: netip.MustParseAddr("198.51.100.1"), Link: link(h, "eth0").Attrs().Index, Protocol: 188}
		return errors.Join(add(h, "peth0", "192.0.2.129/25", nil), add(h, "eth0", "169.254.1.1/16", nil), h.RouteReplace(encodeRoute(r)))
	})
	before := observeIn(t, ns, want)
	wantNothing(t, Plan(want, before))
	want.VIPs = nil
	mustConverge(t, ns, want)
	after := observeIn(t, ns, want)
	for _, a := range before.Addresses {
		if a.Link != 1 && !slices.Contains(after.Addresses, a) {
			t.Errorf("address %v is gone", a.Prefix)
		}
	}
	for _, r := range before.Routes {
		if r.Protocol != unix.RTPROT_KERNEL && !slices.Contains(after.Routes, r) {
			t.Errorf("route %+v is gone", r)
		}
	}
	if !slices.ContainsFunc(after.Addresses, func(a Address) bool { return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast() }) {
		t.Error("no IPv6 link-local address is left")
	}
}

// TestSourceAddress asks the kernel which source it would take: a VIP must never be the answer.
func TestSourceAddress(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", mac0)
	addVeth(t, ns, "eth1", mac1)
	want := realServer()
	mustConverge(t, ns, want)
	do(t, ns, func(h *netlink.Handle) error {
		for to, from := range map[string]string{
			"192.0.2.200": "198.51.100.11", "10.12.0.9": "10.12.1.11", "2001:db8:c0::7": "2001:db8:130::11", "2001:db8:120::9": "2001:db8:120::11",
			"2001:db8:5::11": "2001:db8:130::11",
		} {
			routes, err := h.RouteGet(net.ParseIP(to))
			if err != nil {
				return err
			}
			if got := routes[0].Src.String(); got != from {
				t.Errorf("to %s the kernel speaks from %s, want %s", to, got, from)
			}
		}
		return nil
	})
}

// TestHostSysctlsStay demands that a container's settings land in its namespace and not in the caller's.
func TestHostSysctlsStay(t *testing.T) {
	host := newNamespace(t)
	guest := newNamespace(t)
	addVeth(t, guest, "eth0", mac0)
	addVeth(t, guest, "eth1", mac1)
	const key = "net/ipv4/conf/all/arp_ignore"
	write(t, host, key, "0")
	err := enter(host, func() error {
		want := realServer()
		have, err := Observe(context.Background(), guest, want)
		if err != nil {
			return err
		}
		return Apply(context.Background(), guest, Plan(want, have))
	})
	if err != nil {
		t.Fatal(err)
	}
	for ns, want := range map[string]string{host: "0", guest: "1"} {
		have := observeIn(t, ns, policy.Inside{Sysctls: []policy.Sysctl{{Key: key}}})
		if got := have.Sysctls[key]; got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

// TestErrors demands that failures are joined, that what depends on a failure is left out, and that the rest is done.
func TestErrors(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", mac0)
	addVeth(t, ns, "eth1", mac1)
	want := realServer()
	want.Sysctls = append(want.Sysctls, policy.Sysctl{Key: "net/ipv4/no_such_setting", Value: "1"})
	want.Routes[0].Via = netip.MustParseAddr("192.0.2.77")
	err := Apply(context.Background(), ns, Plan(want, observeIn(t, ns, want)))
	if !errors.Is(err, os.ErrNotExist) || !errors.Is(err, unix.ENETUNREACH) {
		t.Fatalf("error is %v", err)
	}
	for i, part := range []string{"update sysctl net/ipv4/no_such_setting: ", "create route default: "} {
		if line := strings.Split(err.Error(), "\n")[i]; !strings.HasPrefix(line, part) {
			t.Errorf("line %d is %q, want it to begin with %q", i, line, part)
		}
	}
	left := Plan(want, observeIn(t, ns, want))
	if len(left) != 2 {
		t.Errorf("left to do:\n%s", render(t, left))
	}
}

// TestCrowd demands that what root in a guest piles up is an error, and not the host's memory.
func TestCrowd(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", mac0)
	do(t, ns, func(h *netlink.Handle) error {
		lo := link(h, "lo")
		for i := range mostEntries + 1 {
			a := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})
			if err := h.AddrAdd(lo, &netlink.Addr{IPNet: encodePrefix(netip.PrefixFrom(a, 32)), Broadcast: net.IPv4zero}); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := Observe(context.Background(), ns, realServer()); !errors.Is(err, errTooMany) {
		t.Errorf("error is %v, want that there are too many", err)
	}
}

// BenchmarkObserve measures one look into a guest that is as wanted, which each pass of the agent takes.
func BenchmarkObserve(b *testing.B) {
	ns := newNamespace(b)
	addVeth(b, ns, "eth0", mac0)
	addVeth(b, ns, "eth1", mac1)
	want := realServer()
	mustConverge(b, ns, want)
	for b.Loop() {
		if have, err := Observe(context.Background(), ns, want); err != nil || len(Plan(want, have)) > 0 {
			b.Fatal(err)
		}
	}
}
