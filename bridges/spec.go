package bridges

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Kind is the kind of a link as rtnetlink names it (IFLA_INFO_KIND).
type Kind string

// The kinds of links that bladenet makes. A tap is of kind tun with type tap.
const (
	KindVLAN   Kind = "vlan"
	KindBridge Kind = "bridge"
	KindTap    Kind = "tun"
	KindVeth   Kind = "veth"
)

// maxName is the longest name of a link in bytes: IFNAMSIZ of linux/if.h without the closing zero.
const maxName = 15

// Spec is the links that a blade shall have. Every slice is sorted by name.
type Spec struct {
	Trunk      string             `json:"trunk"`
	VLANs      []VLAN             `json:"vlans"`
	Bridges    []Bridge           `json:"bridges"`
	Namespaces []policy.GuestName `json:"namespaces"` // guests that live in a named network namespace
	Ports      []Port             `json:"ports"`
}

// VLAN is an 802.1Q link on the trunk, itself a port of its bridge.
type VLAN struct {
	Name    string             `json:"name"`
	ID      policy.VLANID      `json:"id"`
	Network policy.NetworkName `json:"network"`
	Bridge  string             `json:"bridge"`
}

// Bridge is the bridge of one network.
type Bridge struct {
	Name    string             `json:"name"`
	Network policy.NetworkName `json:"network"`
	MAC     policy.MAC         `json:"mac"` // its own; explicit, so that no port's coming or going changes it
}

// Port is a guest's tap, or its veth pair: the host end and the end in the guest's namespace.
type Port struct {
	Name      string           `json:"name"`
	Kind      Kind             `json:"kind"` // tun or veth
	Guest     policy.GuestName `json:"guest"`
	Interface string           `json:"interface"` // name inside the guest: eth0, eth1
	Bridge    string           `json:"bridge"`
	MAC       policy.MAC       `json:"mac"`       // of the host end, never the guest's
	GuestMAC  policy.MAC       `json:"guest_mac"` // of the veth's end in the namespace; a tap's guest gets it from its driver
}

// Wanted derives the links from a blade. The same blade gives the same Spec.
func Wanted(b policy.Blade) Spec {
	s := Spec{Trunk: b.Trunk}
	for _, seg := range b.Segments {
		s.VLANs = append(s.VLANs, VLAN{Name: seg.Link, ID: seg.VLAN, Network: seg.Network, Bridge: seg.Bridge})
		s.Bridges = append(s.Bridges, Bridge{Name: seg.Bridge, Network: seg.Network, MAC: bridgeMAC(b.Name, seg.Bridge)})
	}
	for _, g := range b.Guests {
		if g.Driver == policy.DriverLXC {
			s.Namespaces = append(s.Namespaces, g.Name)
		}
		for _, p := range g.Ports {
			s.Ports = append(s.Ports, wantedPort(g, p))
		}
	}
	slices.SortFunc(s.VLANs, func(a, b VLAN) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Bridges, func(a, b Bridge) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Ports, func(a, b Port) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(s.Namespaces)
	return s
}

func wantedPort(g policy.Guest, p policy.Port) Port {
	kind := KindTap
	if g.Driver == policy.DriverLXC {
		kind = KindVeth
	}
	return Port{
		Name: p.Name, Kind: kind, Guest: g.Name, Interface: p.Interface, Bridge: p.Bridge,
		MAC: hostMAC(p.MAC), GuestMAC: p.MAC,
	}
}

// hostMAC is the guest's address with the first byte fe: locally administered, unicast, and above every address that a bridge would choose
// for itself. The guest's own must not lie on the host end: the bridge would take frames to the guest for frames to itself.
func hostMAC(guest policy.MAC) policy.MAC {
	host := guest
	host[0] = 0xfe
	if host == guest {
		host[0] = 0xfa
	}
	return host
}

// bridgeMAC is a locally administered unicast address that depends on the names only.
func bridgeMAC(blade policy.BladeName, bridge string) policy.MAC {
	sum := sha256.Sum256([]byte("bladenet bridge " + string(blade) + " " + bridge))
	mac := policy.MAC(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// The marker in a link's alias. It repeats the link's name, so that a link which somebody renamed is no longer taken for ours.
const marker = "bladenet"

func (v VLAN) alias() string   { return alias(v.Name, "vlan of network "+string(v.Network)) }
func (b Bridge) alias() string { return alias(b.Name, "bridge of network "+string(b.Network)) }
func (p Port) alias() string {
	return alias(p.Name, "port of "+string(p.Guest)+" "+p.Interface)
}

func alias(name, what string) string { return marker + " " + name + " " + what }

// Object names the link as plans and errors do.
func (v VLAN) Object() string { return "vlan " + v.Name }

// Object names the bridge as plans and errors do.
func (b Bridge) Object() string { return "bridge " + b.Name }

// Object names the port as plans and errors do: tap or veth, and its name.
func (p Port) Object() string { return kindName(p.Kind) + " " + p.Name }

// kindName is a kind of link as people call it.
func kindName(k Kind) string {
	switch k {
	case KindTap:
		return "tap"
	case "":
		return "device"
	}
	return string(k)
}
