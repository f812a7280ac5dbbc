package bridges

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
)

// trunk is a trunk as a blade has one.
func trunk(mtu int, up bool) Link {
	return Link{Name: "trunk0", MTU: mtu, Up: up, MAC: policy.MAC{2, 9, 9, 9, 9, 9}, IPv6: true}
}

// vlanSpec is a director and a real server on two networks.
func vlanSpec() Spec {
	s := portSpec()
	s.VLANs = []VLAN{{Name: "vlan120", ID: 120, Network: "service", Bridge: "br120"}, {Name: "vlan130", ID: 130, Network: "return", Bridge: "br130"}}
	return s
}

// portSpec is vlanSpec without its VLAN links, for kernels without 8021q.
func portSpec() Spec {
	return Spec{
		Trunk:      "trunk0",
		Bridges:    []Bridge{{Name: "br120", Network: "service", MAC: bridgeMAC("b1", "br120")}, {Name: "br130", Network: "return", MAC: bridgeMAC("b1", "br130")}},
		Namespaces: []policy.GuestName{"www-1"},
		Ports: []Port{
			testPort("dir-1.0", KindTap, "dir-1", "eth0", "br130", 1),
			testPort("dir-1.1", KindTap, "dir-1", "eth1", "br120", 2),
			testPort("www-1.0", KindVeth, "www-1", "eth0", "br130", 3),
			testPort("www-1.1", KindVeth, "www-1", "eth1", "br120", 4),
		},
	}
}

func testPort(name string, kind Kind, guest policy.GuestName, inside, bridge string, id byte) Port {
	mac := policy.MAC{2, 0, 0, 0, 0, id}
	return Port{Name: name, Kind: kind, Guest: guest, Interface: inside, Bridge: bridge, MAC: hostMAC(mac), GuestMAC: mac}
}

func render(t testing.TB, s Steps) string {
	t.Helper()
	var b bytes.Buffer
	if err := plan.Render(&b, s.Plain()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// settled returns a model that has converged to a spec.
func settled(t *testing.T, want Spec, links ...Link) *model {
	t.Helper()
	m := newModel(links...)
	if err := m.converge(want); err != nil {
		t.Fatal(err)
	}
	return m
}

func edit(m *model, name string, f func(l *Link)) {
	l := m.Links[name]
	f(&l)
	m.Links[name] = l
}

// TestPlanText compares the text of plans with golden files: each case is one thing that can be wrong with a blade.
func TestPlanText(t *testing.T) {
	all := vlanSpec()
	without := func(f func(s *Spec)) Spec {
		s := vlanSpec()
		f(&s)
		return s
	}
	for _, c := range []struct {
		name  string
		want  Spec
		have  func(t *testing.T) *model
		spoil func(m *model)
	}{
		{name: "empty-blade", want: all, have: func(*testing.T) *model { return newModel(trunk(9000, false)) }},
		{name: "nothing-to-do", want: all},
		{name: "no-trunk", want: all, have: func(*testing.T) *model {
			return newModel(Link{Name: "lo"}, Link{Name: "eno1"}, Link{Name: "docker0", Kind: KindBridge}, Link{Name: "eno2"})
		}},
		{name: "trunk-by-alternative-name", want: without(func(s *Spec) { s.Ports, s.Namespaces = nil, nil }), have: func(*testing.T) *model {
			return newModel(Link{Name: "eth7", AltNames: []string{"enp7s0", "trunk0"}, MTU: 1500, Up: true})
		}},
		{name: "no-trunk-any-more", want: all, spoil: func(m *model) { delete(m.Links, "trunk0"); delete(m.Links, "vlan120"); delete(m.Links, "vlan130") }},
		{name: "foreign-bridge", want: all, have: func(*testing.T) *model {
			return newModel(trunk(1500, true), Link{Name: "br120", Kind: KindBridge, Alias: "the lab's"})
		}},
		{name: "foreign-vlan", want: all, have: func(*testing.T) *model {
			return newModel(trunk(1500, true), Link{Name: "old120", Kind: KindVLAN, Parent: "trunk0", VLAN: VLANState{ID: 120, Protocol: 0x8100}},
				Link{Name: "qinq130", Kind: KindVLAN, Parent: "trunk0", VLAN: VLANState{ID: 130, Protocol: 0x88a8}})
		}},
		{name: "foreign-port", want: all, have: func(*testing.T) *model {
			return newModel(trunk(1500, true), Link{Name: "dir-1.0", Kind: KindTap, Tap: TapState{Tap: true}}, Link{Name: "eno3", AltNames: []string{"www-1.1"}})
		}},
		{name: "renamed-bridge", want: all, spoil: func(m *model) {
			edit(m, "br120", func(l *Link) { l.Name = "br7" })
			m.Links["br7"] = m.Links["br120"]
			delete(m.Links, "br120")
			for _, name := range []string{"vlan120", "dir-1.1", "www-1.1"} {
				edit(m, name, func(l *Link) { l.Master = "br7" })
			}
		}},
		{name: "newborn", want: all, spoil: func(m *model) {
			for _, name := range []string{"br120", "vlan120", "www-1.0"} {
				// Without its alias nobody knows in whose namespace a veth's other end is.
				edit(m, name, func(l *Link) {
					l.Alias, l.Group, l.IPv6, l.Master, l.Up, l.Inside = "", newborn, true, "", false, End{}
				})
			}
		}},
		{name: "bridge-settings", want: all, spoil: func(m *model) {
			edit(m, "br120", func(l *Link) {
				l.MAC, l.Up, l.IPv6 = policy.MAC{2, 2, 2, 2, 2, 2}, false, true
				l.Bridge = BridgeState{STP: true, ForwardDelay: 1500, Snooping: true, VLANFiltering: true, CallIPTables: true}
			})
		}},
		{name: "br-netfilter", want: all, spoil: func(m *model) {
			m.Netfilter = []string{"net.bridge.bridge-nf-call-ip6tables", "net.bridge.bridge-nf-call-iptables"}
		}},
		{name: "trunk-mtu", want: all, spoil: func(m *model) { edit(m, "trunk0", func(l *Link) { l.MTU = 9000 }) }},
		{name: "wrong-vlan", want: all, spoil: func(m *model) {
			edit(m, "vlan120", func(l *Link) { l.VLAN.ID = 7 })
			edit(m, "vlan130", func(l *Link) { l.Master = "br120" })
		}},
		{name: "port-down-and-elsewhere", want: all, spoil: func(m *model) {
			edit(m, "dir-1.0", func(l *Link) { l.Up = false })
			edit(m, "dir-1.1", func(l *Link) { l.Master = "br130" })
			edit(m, "www-1.0", func(l *Link) { l.Master = "" })
		}},
		{name: "learning-port", want: all, spoil: func(m *model) {
			edit(m, "dir-1.1", func(l *Link) {
				l.Port = PortState{Learning: true, Flood: true, Pinned: []policy.MAC{{2, 6, 6, 6, 6, 6}}}
			})
		}},
		{name: "hostile-guest", want: all, spoil: func(m *model) {
			edit(m, "www-1.0", func(l *Link) { l.Inside.MAC, l.Inside.MTU = policy.MAC{2, 6, 6, 6, 6, 6}, 68 })
			delete(m.Links, "www-1.1")
		}},
		{name: "namespace-gone", want: all, spoil: func(m *model) {
			m.Namespaces["www-1"] = Namespaced{}
			for _, name := range []string{"www-1.0", "www-1.1"} {
				edit(m, name, func(l *Link) { l.Inside = End{} })
			}
		}},
		{name: "driver-changed", want: without(func(s *Spec) {
			s.Namespaces = []policy.GuestName{"dir-1"}
			s.Ports = s.Ports[:2]
			s.Ports[0].Kind, s.Ports[1].Kind = KindVeth, KindVeth
		})},
		{name: "several-queues", want: all, spoil: func(m *model) { edit(m, "dir-1.0", func(l *Link) { l.Tap.MultiQueue = true }) }},
		{name: "guest-gone", want: without(func(s *Spec) { s.Ports, s.Namespaces = s.Ports[:2], nil })},
		{name: "everything-gone", want: Spec{Trunk: "trunk0"}},
		{name: "bad-names", want: without(func(s *Spec) {
			s.Ports[0].Name, s.Ports[1].Name, s.Ports[2].Bridge = "a-name-of-16-bytes", "../evil", "br999"
		}), have: func(*testing.T) *model { return newModel(trunk(1500, true)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := settledOr(t, c.have, all)
			if c.spoil != nil {
				c.spoil(m)
			}
			golden.Check(t, c.name+".plan", render(t, Plan(c.want, m.clone())))
			foreign := m.foreign()
			if err := m.converge(c.want); err != nil {
				t.Errorf("apply: %v", err)
			}
			wantNothing(t, Plan(c.want, m.clone()))
			if diff := cmp.Diff(foreign, m.foreign(), cmpopts.IgnoreUnexported(Link{})); diff != "" {
				t.Errorf("foreign links were touched (-before +after):\n%s", diff)
			}
		})
	}
}

func settledOr(t *testing.T, have func(t *testing.T) *model, want Spec) *model {
	t.Helper()
	if have != nil {
		return have(t)
	}
	return settled(t, want, trunk(1500, true))
}

// foreign returns the links that are not ours; the trunk's state is ours to set up.
func (m *model) foreign() map[string]Link {
	out := map[string]Link{}
	for name, l := range m.Links {
		if !l.ours() && name != "trunk0" {
			out[name] = l
		}
	}
	return out
}

func wantNothing(t testing.TB, s Steps) {
	t.Helper()
	for _, step := range s.Plain() {
		if step.Verb != plan.Blocked {
			t.Errorf("left to do:\n%s", render(t, s))
			return
		}
	}
}

// TestWalk goes from one random spec to the next, with foreign links in the way and a fault after a random step, and demands that a retry
// converges, that foreign links stay as they were, and that planning again plans nothing.
func TestWalk(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := newModel(trunk(1500, r.IntN(2) == 0))
		for _, l := range randomForeign(r) {
			m.add(l)
		}
		for range 6 {
			want := randomSpec(r, true)
			edit(m, "trunk0", func(l *Link) { l.MTU = 1500 + 100*r.IntN(3) })
			foreign := m.foreign()
			m.fail = r.IntN(30)
			if err := m.converge(want); err != nil && !errors.Is(err, errModel) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			m.fail = -1
			if err := m.converge(want); err != nil {
				t.Fatalf("seed %d: retry: %v", seed, err)
			}
			wantNothing(t, Plan(want, m.clone()))
			if diff := cmp.Diff(foreign, m.foreign(), cmpopts.IgnoreUnexported(Link{})); diff != "" {
				t.Errorf("seed %d: foreign links were touched (-before +after):\n%s", seed, diff)
			}
			checkSettled(t, want, m.State)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// randomForeign draws links of somebody else, some of which have names or VLANs that specs want.
func randomForeign(r *rand.Rand) []Link {
	all := []Link{
		{Name: "eno9", MTU: 1500, Up: true, IPv6: true},
		{Name: "br120", Kind: KindBridge, MTU: 1500, Bridge: BridgeState{STP: true}},
		{Name: "g2.0", Kind: KindTap, Tap: TapState{Tap: true}},
		{Name: "other", Kind: KindVLAN, Parent: "trunk0", VLAN: VLANState{ID: 130, Protocol: ethernet8021Q}},
		{Name: "vlan111", Kind: KindVLAN, Parent: "eno9", VLAN: VLANState{ID: 111, Protocol: ethernet8021Q}},
		{Name: "copied", Kind: KindBridge, Alias: "bladenet br130 bridge of network net-130"},
		{Name: "nic7", AltNames: []string{"br140", "g3.1"}},
	}
	var out []Link
	for _, l := range all {
		if r.IntN(4) == 0 {
			out = append(out, l)
		}
	}
	return out
}

// checkSettled demands of a state what a spec says, by its own reading of both.
func checkSettled(t *testing.T, want Spec, have State) {
	t.Helper()
	taken := func(name string) bool {
		for _, l := range have.Links {
			for _, alt := range l.AltNames {
				if alt == name {
					return true
				}
			}
		}
		l, ok := have.Links[name]
		return ok && !strings.HasPrefix(l.Alias, "bladenet "+name+" ")
	}
	mtu := have.Links[want.Trunk].MTU
	for _, b := range want.Bridges {
		if l := have.Links[b.Name]; !taken(b.Name) && (!l.Up || l.MTU != mtu || l.MAC != b.MAC || l.IPv6) {
			t.Errorf("bridge %s is %+v", b.Name, l)
		}
	}
	for _, p := range want.Ports {
		l := have.Links[p.Name]
		if taken(p.Name) || taken(p.Bridge) {
			continue
		}
		if l.Kind != p.Kind || !l.Up || l.Master != p.Bridge || l.MTU != mtu || l.MAC != p.MAC {
			t.Errorf("port %s is %+v", p.Name, l)
		}
		if l.Port.Learning || l.Port.Flood || !slices.Equal(l.Port.Pinned, []policy.MAC{p.GuestMAC}) {
			t.Errorf("port %s: its bridge has %+v, want nothing but frames to %s", p.Name, l.Port, p.GuestMAC)
		}
		if p.Kind == KindVeth && (l.Inside.Guest != p.Guest || l.Inside.MAC != p.GuestMAC || l.Inside.MTU != mtu) {
			t.Errorf("port %s leads to %+v", p.Name, l.Inside)
		}
	}
	for name, l := range have.Links {
		if l.ours() && !want.has(name) {
			t.Errorf("link %s is left over", name)
		}
	}
}

func (s Spec) has(name string) bool {
	for _, b := range s.Bridges {
		if b.Name == name {
			return true
		}
	}
	for _, v := range s.VLANs {
		if v.Name == name {
			return true
		}
	}
	for _, p := range s.Ports {
		if p.Name == name {
			return true
		}
	}
	return false
}

// TestPortsStayClosed demands that no phase before Attach joins a port to a bridge or sets it up, and that a port that moves has left its
// old bridge in Remove.
func TestPortsStayClosed(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		m := settled(t, randomSpec(r, true), trunk(1500, true))
		want := randomSpec(r, true)
		before := m.clone()
		steps := Plan(want, before)
		if err := errors.Join(m.apply(steps.Remove), m.apply(steps.Create)); err != nil {
			t.Fatal(err)
		}
		for _, p := range want.Ports {
			l, old := m.Links[p.Name], before.Links[p.Name]
			stayed := old.Index == l.Index && old.Master == p.Bridge
			if !stayed && (l.Master != "" || l.Up) {
				t.Fatalf("seed %d: port %s is open before Attach: %+v", seed, p.Name, l)
			}
		}
	}
}

// TestPlanIsDeterministic plans the same thing several times: maps have no order.
func TestPlanIsDeterministic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	m := settled(t, randomSpec(r, true), trunk(1500, true))
	want := randomSpec(r, true)
	first := render(t, Plan(want, m.clone()))
	for range 20 {
		if diff := cmp.Diff(first, render(t, Plan(want, m.clone()))); diff != "" {
			t.Fatalf("another plan (-first +later):\n%s", diff)
		}
	}
}
