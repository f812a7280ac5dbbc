package inside

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
)

var (
	mac0 = policy.MAC{2, 0, 0, 0, 0, 1}
	mac1 = policy.MAC{2, 0, 0, 0, 0, 2}
)

// realServer is what a real server wants inside.
func realServer() policy.Inside {
	return policy.Inside{
		Hostname: "www-1",
		Interfaces: []policy.Interface{
			{Name: "eth0", MAC: mac0, Addresses: prefixes("198.51.100.11/25", "2001:db8:130::11/64")},
			{Name: "eth1", MAC: mac1, Addresses: prefixes("10.12.1.11/22", "2001:db8:120::11/64")},
		},
		VIPs: []policy.VIP{{Address: netip.MustParseAddr("203.0.113.10")}, {Address: netip.MustParseAddr("2001:db8:5::10")}},
		Routes: []policy.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("198.51.100.1"), Interface: "eth0"},
			{Destination: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8:130::1"), Interface: "eth0"},
		},
		Sysctls: []policy.Sysctl{
			{Key: "net/ipv4/conf/all/arp_ignore", Value: "1"},
			{Key: "net/ipv4/conf/all/arp_announce", Value: "2"},
			{Key: "net/ipv4/conf/all/rp_filter", Value: "0"},
			{Key: "net/ipv4/conf/eth1/rp_filter", Value: "0"},
			{Key: "net/ipv6/conf/all/accept_ra", Value: "0"},
			{Key: "net/ipv6/conf/eth0/accept_ra", Value: "0"},
		},
	}
}

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// ethernets are a guest's interfaces as its driver makes them.
func ethernets() []Link {
	return []Link{{Name: "eth0", Kind: "veth", MAC: mac0}, {Name: "eth1", Kind: "veth", MAC: mac1}}
}

func render(t testing.TB, steps []Step) string {
	t.Helper()
	var plain []plan.Step
	for _, s := range steps {
		plain = append(plain, s.Step)
	}
	var b bytes.Buffer
	if err := plan.Render(&b, plain); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func settled(t *testing.T, want policy.Inside) *model {
	t.Helper()
	m := newModel(ethernets()...)
	if err := m.apply(Plan(want, m.clone(want)), -1); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPlanText compares the text of plans with golden files: each case is one thing that can be wrong inside a guest.
func TestPlanText(t *testing.T) {
	other := func(f func(want *policy.Inside)) policy.Inside {
		want := realServer()
		f(&want)
		return want
	}
	for _, c := range []struct {
		name  string
		want  policy.Inside
		have  *model
		spoil func(m *model)
	}{
		{name: "fresh", want: realServer(), have: newModel(ethernets()...)},
		{name: "nothing-to-do", want: realServer()},
		{name: "other-order", want: realServer(), have: newModel(Link{Name: "eth0", MAC: mac1, Up: true}, Link{Name: "eth1", MAC: mac0})},
		{name: "other-names", want: realServer(), have: newModel(Link{Name: "enp1s0", MAC: mac0, Up: true},
			Link{Name: "vlan7", Kind: "vlan", MAC: mac1}, Link{Name: "enp2s0", MAC: mac1, Up: true}, Link{Name: "eth1", Kind: "dummy"})},
		{name: "by-name", want: realServer(), have: newModel(Link{Name: "eth0", Kind: "veth", MAC: policy.MAC{2, 6}}, Link{Name: "eth1", Kind: "veth", MAC: mac1})},
		{name: "no-eth1", want: realServer(), have: newModel(Link{Name: "eth0", Kind: "veth", MAC: mac0}, Link{Name: "tunl0", Kind: "ipip"}, Link{Name: "\x1b[2J", Kind: "dummy"})},
		{name: "vips-withdrawn", want: other(func(want *policy.Inside) { want.VIPs = nil })},
		{name: "foreign-addresses", want: realServer(), spoil: func(m *model) {
			m.Addresses = append(m.Addresses,
				Address{Link: 1, Prefix: netip.MustParsePrefix("127.0.0.1/8"), Lasting: true, Preferred: true},
				Address{Link: 1, Prefix: netip.MustParsePrefix("203.0.113.99/32"), Lasting: true, Preferred: true},
				Address{Link: 2, Prefix: netip.MustParsePrefix("169.254.1.1/16"), Lasting: true, Preferred: true},
				Address{Link: 2, Prefix: netip.MustParsePrefix("fe80::1/64"), Lasting: true, Preferred: true},
				Address{Link: 2, Prefix: netip.MustParsePrefix("2001:db8:130::bad/64"), Preferred: true},
				Address{Link: 3, Prefix: netip.MustParsePrefix("192.0.2.7/32"), Peer: netip.MustParsePrefix("192.0.2.8/32"), Lasting: true, Preferred: true})
		}},
		{name: "foreign-first-address", want: realServer(), spoil: func(m *model) {
			for i, a := range m.Addresses {
				if a.Prefix.Addr() == netip.MustParseAddr("198.51.100.11") {
					m.Addresses[i].Secondary = true
				}
			}
			m.Addresses = append(m.Addresses, Address{Link: 2, Prefix: netip.MustParsePrefix("198.51.100.99/25"), Lasting: true, Preferred: true})
		}},
		{name: "wrong-addresses", want: realServer(), spoil: func(m *model) {
			for i := range m.Addresses {
				a := &m.Addresses[i]
				switch {
				case a.Prefix.Addr() == netip.MustParseAddr("198.51.100.11"):
					a.Broadcast = netip.MustParseAddr("0.0.0.255")
				case a.Prefix.Addr() == netip.MustParseAddr("203.0.113.10"):
					a.Broadcast = a.Prefix.Addr()
				case a.Prefix.Addr() == netip.MustParseAddr("2001:db8:5::10"):
					a.Preferred = true
				case a.Prefix.Addr() == netip.MustParseAddr("2001:db8:130::11"):
					a.Failed = true
				case a.Prefix.Addr() == netip.MustParseAddr("10.12.1.11"):
					a.Lasting = false
				case a.Prefix.Addr() == netip.MustParseAddr("2001:db8:120::11"):
					a.Preferred = false
				}
			}
		}},
		{name: "routes", want: realServer(), spoil: func(m *model) {
			m.Routes = []Route{
				{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.12.1.1"), Link: 3, Protocol: 3},
				{Destination: netip.MustParsePrefix("198.51.100.0/25"), Link: 2, Protocol: 2},
				{Destination: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("198.51.100.1"), Link: 2, Protocol: protocolStatic},
				{Destination: netip.MustParsePrefix("192.0.2.0/24"), Metric: 20, Via: netip.MustParseAddr("198.51.100.1"), Link: 2, Protocol: 188},
				{Destination: netip.MustParsePrefix("::/0"), Metric: metric6, Via: netip.MustParseAddr("2001:db8:130::1"), Link: 2, Protocol: protocolStatic},
				{Destination: netip.MustParsePrefix("::/0"), Metric: metric6, Via: netip.MustParseAddr("fe80::7"), Link: 2, Protocol: 9},
			}
		}},
		{name: "two-routers", want: other(func(want *policy.Inside) {
			want.Routes = append(want.Routes, policy.Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("198.51.100.2"), Interface: "eth0"})
		})},
		{name: "sysctls", want: other(func(want *policy.Inside) {
			want.Sysctls = append(want.Sysctls, policy.Sysctl{Key: "kernel/hostname", Value: "x"}, policy.Sysctl{Key: "net/../kernel/panic", Value: "1"},
				policy.Sysctl{Key: "net/ipv4/tcp_rmem", Value: "4096 131072\t6291456"})
		}), spoil: func(m *model) {
			m.Sysctls["net/ipv4/conf/eth1/rp_filter"] = "1"
			m.Sysctls["net/ipv6/conf/all/accept_ra"] = "1"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.have
			if m == nil {
				m = settled(t, realServer())
			}
			if c.spoil != nil {
				c.spoil(m)
			}
			steps := Plan(c.want, m.clone(c.want))
			golden.Check(t, c.name+".plan", render(t, steps))
			if err := m.apply(steps, -1); err != nil {
				t.Fatalf("apply: %v", err)
			}
			wantNothing(t, Plan(c.want, m.clone(c.want)))
		})
	}
}

func wantNothing(t *testing.T, steps []Step) {
	t.Helper()
	for _, s := range steps {
		if s.Verb != plan.Blocked {
			t.Errorf("left to do:\n%s", render(t, steps))
			return
		}
	}
}

// randomInside draws addresses, VIPs, routes and sysctls of a small world, so that two draws have much in common.
func randomInside(r *rand.Rand) policy.Inside {
	want := policy.Inside{Hostname: "g"}
	some := func(all []netip.Prefix) []netip.Prefix {
		return slices.DeleteFunc(slices.Clone(all), func(netip.Prefix) bool { return r.IntN(3) == 0 })
	}
	want.Interfaces = []policy.Interface{
		{Name: "eth0", MAC: mac0, Addresses: some(prefixes("10.0.0.1/24", "10.0.0.2/24", "10.0.1.1/31", "2001:db8::1/64", "2001:db8::2/64"))},
		{Name: "eth1", MAC: mac1, Addresses: some(prefixes("10.1.0.1/24", "10.1.0.2/24", "2001:db8:1::1/64"))},
	}
	for _, p := range some(prefixes("203.0.113.1/32", "203.0.113.2/32", "2001:db8:5::1/128", "2001:db8:5::2/128")) {
		want.VIPs = append(want.VIPs, policy.VIP{Address: p.Addr()})
	}
	for _, i := range want.Interfaces {
		for _, p := range i.Addresses {
			if r.IntN(3) == 0 && p.Bits() != 31 {
				want.Routes = append(want.Routes, policy.Route{Destination: anywhere(p), Via: p.Masked().Addr().Next().Next().Next(), Interface: i.Name})
			}
		}
	}
	for _, key := range []string{"net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/eth0/arp_ignore", "net/ipv4/conf/all/arp_announce", "net/ipv4/conf/eth1/arp_announce"} {
		if r.IntN(2) == 0 {
			want.Sysctls = append(want.Sysctls, policy.Sysctl{Key: key, Value: []string{"0", "1", "2"}[r.IntN(3)]})
		}
	}
	return want
}

func anywhere(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return netip.MustParsePrefix("0.0.0.0/0")
	}
	return netip.MustParsePrefix("::/0")
}

// TestWalk goes from one random wish to the next with a fault after a random step, and demands that a retry converges at once.
func TestWalk(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		links := ethernets()
		if r.IntN(2) == 0 {
			links[0].Name, links[1].Name = "eth1", "eth0"
		}
		m := newModel(links...)
		for range 6 {
			want := randomInside(r)
			if err := m.apply(Plan(want, m.clone(want)), r.IntN(12)); err != nil && !errors.Is(err, errModel) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			steps := Plan(want, m.clone(want))
			if err := m.apply(steps, -1); err != nil {
				t.Fatalf("seed %d: retry: %v\n%s", seed, err, render(t, steps))
			}
			wantNothing(t, Plan(want, m.clone(want)))
			checkSettled(t, want, m.State)
			if t.Failed() {
				t.Fatalf("seed %d, after\n%s", seed, render(t, steps))
			}
		}
	}
}

// checkSettled demands of a state what is wanted, by its own reading of both.
func checkSettled(t *testing.T, want policy.Inside, have State) {
	t.Helper()
	expected := map[string]bool{}
	for _, i := range want.Interfaces {
		for _, p := range i.Addresses {
			expected[i.Name+" "+p.String()] = true
		}
	}
	for _, v := range want.VIPs {
		expected["lo "+netip.PrefixFrom(v.Address, v.Address.BitLen()).String()] = true
	}
	got := map[string]bool{}
	for _, a := range have.Addresses {
		if l, _ := have.link(a.Link); !a.Prefix.Addr().IsLoopback() && !a.Prefix.Addr().IsLinkLocalUnicast() && !strings.HasPrefix(l.Name, "p") {
			got[l.Name+" "+a.Prefix.String()] = true
		}
		if a.Prefix.Addr().Is6() && a.Prefix.Bits() == 128 && a.Preferred && !a.Prefix.Addr().IsLoopback() {
			t.Errorf("VIP %s could be a source address", a.Prefix)
		}
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	routes := 0
	for _, r := range have.Routes {
		if r.Protocol == protocolStatic {
			routes++
		}
	}
	if routes != len(want.Routes) {
		t.Errorf("%d routes, want %d", routes, len(want.Routes))
	}
}

// TestFresh demands that a plan for a guest to come is, but for the old values of its sysctls, the plan for the one that was just made.
func TestFresh(t *testing.T) {
	want := realServer()
	have := Fresh(want)
	have.Sysctls = newModel(ethernets()...).clone(want).Sysctls
	if diff := cmp.Diff(render(t, Plan(want, newModel(ethernets()...).clone(want))), render(t, Plan(want, have))); diff != "" {
		t.Errorf("plans (-made +to come):\n%s", diff)
	}
}

// TestOrder demands that a VIP is there only when ARP has been told to be silent about it.
func TestOrder(t *testing.T) {
	want := realServer()
	arp, vip := -1, -1
	for i, s := range Plan(want, newModel(ethernets()...).clone(want)) {
		if strings.Contains(s.Object, "arp_ignore") || strings.Contains(s.Object, "arp_announce") {
			arp = i
		}
		if strings.Contains(s.Object, "203.0.113.10/32") && vip < 0 {
			vip = i
		}
	}
	if arp < 0 || vip < arp {
		t.Errorf("VIP in step %d, ARP silent in step %d", vip, arp)
	}
}

func TestBroadcast(t *testing.T) {
	for _, c := range []struct{ prefix, want string }{
		{"198.51.100.11/25", "198.51.100.127"},
		{"10.12.1.11/22", "10.12.3.255"},
		{"192.0.2.1/30", "192.0.2.3"},
		{"192.0.2.1/31", ""},
		{"192.0.2.1/32", ""},
		{"10.0.0.1/8", "10.255.255.255"},
		{"2001:db8::1/64", ""},
	} {
		got := ""
		if b := broadcast(netip.MustParsePrefix(c.prefix)); b.IsValid() {
			got = b.String()
		}
		if got != c.want {
			t.Errorf("broadcast of %s is %q, want %q", c.prefix, got, c.want)
		}
	}
}

func TestValidSysctl(t *testing.T) {
	for key, want := range map[string]bool{
		"net/ipv4/ip_forward":          true,
		"net/ipv4/conf/www-1.0/forw":   true,
		"kernel/hostname":              false,
		"net/../kernel/hostname":       false,
		"net/ipv4/../../kernel/x":      false,
		"/net/ipv4/ip_forward":         false,
		"net/":                         false,
		"net.ipv4.ip_forward":          false,
		"net/ipv4//ip_forward":         false,
		"../proc/sys/net/ipv4/forward": false,
	} {
		if got := validSysctl(key); got != want {
			t.Errorf("validSysctl(%q) is %v", key, got)
		}
	}
}
