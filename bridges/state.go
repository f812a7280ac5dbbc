package bridges

import (
	"maps"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// State is what is there: every link of the blade's network namespace, ours or not, and the guests' named namespaces.
type State struct {
	Links      map[string]Link                 `json:"links"` // by name
	Namespaces map[policy.GuestName]Namespaced `json:"namespaces"`
	Netfilter  []string                        `json:"netfilter,omitempty"` // sysctls that hand bridged frames to the host's own IP filter
}

// Namespaced says what lies under a guest's namespace path.
type Namespaced struct {
	Ready bool `json:"ready"` // a network namespace is mounted on the file; false: a leftover of an interrupted creation
}

// Link is one link as the kernel tells of it, reduced to what bladenet manages.
type Link struct {
	Name     string     `json:"name"`
	AltNames []string   `json:"alt_names,omitempty"`
	Index    int        `json:"index"`
	Kind     Kind       `json:"kind,omitempty"`
	Alias    string     `json:"alias,omitempty"`
	Group    uint32     `json:"group,omitempty"`
	MTU      int        `json:"mtu"`
	MAC      policy.MAC `json:"mac"`
	Up       bool       `json:"up"`
	Master   string     `json:"master,omitempty"` // name of the bridge it is a port of
	Parent   string     `json:"parent,omitempty"` // VLAN link: name of the link below
	IPv6     bool       `json:"ipv6"`             // IPv6 is not switched off on it, or it would give itself a link-local address

	VLAN   VLANState   `json:"vlan,omitzero"`
	Bridge BridgeState `json:"bridge,omitzero"`
	Tap    TapState    `json:"tap,omitzero"`
	Port   PortState   `json:"port,omitzero"`   // of a bridge
	Inside End         `json:"inside,omitzero"` // veth: its other end, if that is in a guest's namespace

	master, link int // IFLA_MASTER, IFLA_LINK: indexes, the latter in the namespace of the other end
}

// VLANState is a VLAN link's own data.
type VLANState struct {
	ID       policy.VLANID `json:"id"`
	Protocol uint16        `json:"protocol"` // EtherType: 0x8100 is 802.1Q
}

// BridgeState is what bladenet manages of a bridge; its zero value is what it wants.
type BridgeState struct {
	STP           bool   `json:"stp"`
	ForwardDelay  uint32 `json:"forward_delay"` // hundredths of a second
	Snooping      bool   `json:"snooping"`
	VLANFiltering bool   `json:"vlan_filtering"`
	CallIPTables  bool   `json:"call_iptables"` // br_netfilter, any of the three families
}

// PortState is what bladenet manages of a guest's port of a bridge.
type PortState struct {
	Learning bool         `json:"learning"` // the bridge believes the sender's MAC of every frame from the port
	Flood    bool         `json:"flood"`    // the port gets frames to a MAC that the bridge does not know
	Pinned   []policy.MAC `json:"pinned"`   // frames to these go to the port, whoever says otherwise; sorted
}

// TapState is what nobody can change of a tap once it is there. Whoever opens it decides on the packet and vnet headers.
type TapState struct {
	Tap        bool `json:"tap"` // Ethernet, not the tun of IP packets
	MultiQueue bool `json:"multi_queue"`
}

// End is the end of a veth pair inside a guest's namespace.
type End struct {
	Guest policy.GuestName `json:"guest"`
	Name  string           `json:"name"`
	Index int              `json:"index"`
	MAC   policy.MAC       `json:"mac"`
	MTU   int              `json:"mtu"`
}

// newborn is the group that a link gets in the message that creates it. The kernel takes no alias in that message, so the group says whose
// a link is that was left without its alias when the agent died in between. The letters are "blnw".
const newborn uint32 = 0x626c6e77

// ours says whether bladenet made the link: its alias carries the marker and the link's present name, or it is a newborn.
func (l Link) ours() bool {
	return strings.HasPrefix(l.Alias, marker+" "+l.Name+" ") || l.Alias == "" && l.Group == newborn
}

// sorted returns the links in the order of their names.
func (s State) sorted() []Link {
	out := make([]Link, 0, len(s.Links))
	for _, name := range slices.Sorted(maps.Keys(s.Links)) {
		out = append(out, s.Links[name])
	}
	return out
}
