package bridges

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// model is a kernel of the mind: it carries out changes on a State as Linux would, each whole or not at all.
type model struct {
	State
	next int // index of the next link
	fail int // changes until one fails and every later one; negative: none does
}

var errModel = errors.New("the model was told to fail")

func newModel(links ...Link) *model {
	m := &model{State: State{Links: map[string]Link{}, Namespaces: map[policy.GuestName]Namespaced{}}, next: 100, fail: -1}
	for _, l := range links {
		m.add(l)
	}
	return m
}

func (m *model) add(l Link) {
	m.next++
	l.Index = m.next
	m.Links[l.Name] = l
}

// clone returns a State that later changes leave alone.
func (m *model) clone() State {
	return State{Links: maps.Clone(m.Links), Namespaces: maps.Clone(m.Namespaces), Netfilter: m.Netfilter}
}

func (m *model) apply(steps []Step) error {
	for _, s := range steps {
		if s.Verb == plan.Blocked {
			continue
		}
		if m.fail == 0 {
			return errModel
		}
		m.fail--
		if err := m.change(s.do); err != nil {
			return fmt.Errorf("%s %s: %w", s.Verb, s.Object, err)
		}
	}
	return nil
}

// converge plans once and applies the three phases.
func (m *model) converge(want Spec) error {
	steps := Plan(want, m.clone())
	for _, phase := range [][]Step{steps.Remove, steps.Create, steps.Attach} {
		if err := m.apply(phase); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) change(c change) error {
	switch c := c.(type) {
	case createBridge:
		return m.create(Link{Name: c.Name, Kind: KindBridge, Alias: c.alias(), MTU: orDefault(c.mtu), MAC: c.MAC, Up: true})
	case createVLAN:
		if m.Links[c.trunk].Name == "" || m.Links[c.Bridge].Kind != KindBridge {
			return errors.New("trunk or bridge is not there")
		}
		for _, l := range m.Links {
			if l.Kind == KindVLAN && l.Parent == c.trunk && l.VLAN == (VLANState{ID: c.ID, Protocol: ethernet8021Q}) {
				return errors.New("VLAN device already exists")
			}
		}
		return m.create(Link{
			Name: c.Name, Kind: KindVLAN, Alias: c.alias(), MTU: c.mtu, Up: true, Master: c.Bridge, Parent: c.trunk,
			VLAN: VLANState{ID: c.ID, Protocol: ethernet8021Q},
		})
	case createTap:
		return m.create(Link{Name: c.Name, Kind: KindTap, Alias: c.alias(), MTU: orDefault(c.mtu), MAC: c.MAC, Tap: TapState{Tap: true}})
	case createVeth:
		if !m.Namespaces[c.Guest].Ready {
			return errors.New("no such namespace")
		}
		end := End{Guest: c.Guest, Name: c.Interface, Index: 2, MAC: c.GuestMAC, MTU: orDefault(c.mtu)}
		return m.create(Link{Name: c.Name, Kind: KindVeth, Alias: c.alias(), MTU: orDefault(c.mtu), MAC: c.MAC, Inside: end})
	case createNamespace:
		m.dropNamespace(c.guest)
		m.Namespaces[c.guest] = Namespaced{Ready: true}
	case deleteNamespace:
		m.dropNamespace(c.guest)
	case deleteLink:
		maps.DeleteFunc(m.Links, func(_ string, l Link) bool { return l.Index == c.index })
		for name, l := range m.Links {
			if c.kind == KindBridge && l.Master == c.name {
				l.Master, l.Port = "", PortState{}
				m.Links[name] = l
			}
		}
	case setLink:
		return m.set(c)
	default:
		return fmt.Errorf("unknown change %T", c)
	}
	return nil
}

func orDefault(mtu int) int {
	if mtu == 0 {
		return 1500
	}
	return mtu
}

func (m *model) create(l Link) error {
	if _, exists := m.Links[l.Name]; exists {
		return errors.New("file exists")
	}
	m.add(l)
	return nil
}

func (m *model) dropNamespace(guest policy.GuestName) {
	delete(m.Namespaces, guest)
	maps.DeleteFunc(m.Links, func(_ string, l Link) bool { return l.Inside.Guest == guest })
}

func (m *model) set(c setLink) error {
	l, ok := m.Links[c.name]
	if !ok || c.index != 0 && c.index != l.Index || c.index == 0 && !l.ours() {
		return errors.New("no such device")
	}
	if c.state == stateDown {
		l.Up = false
	}
	if c.detach {
		l.Master, l.Port = "", PortState{}
	}
	if c.quiet {
		l.IPv6 = false
	}
	if c.mark {
		l.Alias = c.alias
	}
	if c.mtu != 0 {
		l.MTU = c.mtu
	}
	if c.mac != (policy.MAC{}) {
		l.MAC = c.mac
	}
	if c.bridge != (BridgeState{}) {
		l.Bridge = BridgeState{}
	}
	if c.master != "" {
		if b := m.Links[c.master]; b.Kind != KindBridge || !b.ours() {
			return fmt.Errorf("no bridge %s of ours", c.master)
		}
		l.Master, l.Port = c.master, PortState{Learning: true, Flood: true}
	}
	l.Port.Pinned = slices.DeleteFunc(slices.Clone(l.Port.Pinned), func(m policy.MAC) bool { return slices.Contains(c.forwarding.unpin, m) })
	if c.forwarding.closed {
		l.Port.Learning, l.Port.Flood = false, false
	}
	if c.forwarding.pin != (policy.MAC{}) {
		l.Port.Pinned = append(l.Port.Pinned, c.forwarding.pin)
	}
	if c.end.mac != (policy.MAC{}) {
		l.Inside.MAC = c.end.mac
	}
	if c.end.mtu != 0 {
		l.Inside.MTU = c.end.mtu
	}
	if c.state == stateUp {
		l.Up = true
	}
	m.Links[c.name] = l
	return nil
}

// randomSpec draws links of a few networks and guests, so that two draws have names in common that mean different things. Without VLAN
// links it suits kernels that have none.
func randomSpec(r *rand.Rand, vlans bool) Spec {
	s := Spec{Trunk: "trunk0"}
	for _, id := range []policy.VLANID{111, 120, 130, 140} {
		if r.IntN(4) == 0 {
			continue
		}
		bridge := Bridge{Name: fmt.Sprintf("br%d", id), Network: policy.NetworkName(fmt.Sprintf("net-%d", id)), MAC: policy.MAC{2, 1, 0, 0, byte(r.IntN(2)), byte(id)}}
		s.Bridges = append(s.Bridges, bridge)
		if vlans {
			s.VLANs = append(s.VLANs, VLAN{Name: fmt.Sprintf("vlan%d", id), ID: id, Network: bridge.Network, Bridge: bridge.Name})
		}
	}
	for g := byte(1); g <= 4 && len(s.Bridges) > 0; g++ {
		guest, kind := policy.GuestName(fmt.Sprintf("g%d", g)), KindTap
		switch r.IntN(4) {
		case 0:
			continue
		case 1, 2:
			kind = KindVeth
			s.Namespaces = append(s.Namespaces, guest)
		}
		for i := range byte(2) {
			mac := policy.MAC{2, 0, 0, byte(r.IntN(2)), g, i}
			s.Ports = append(s.Ports, Port{
				Name: fmt.Sprintf("%s.%d", guest, i), Kind: kind, Guest: guest, Interface: fmt.Sprintf("eth%d", i),
				Bridge: s.Bridges[r.IntN(len(s.Bridges))].Name, MAC: hostMAC(mac), GuestMAC: mac,
			})
		}
	}
	slices.Sort(s.Namespaces)
	return s
}
