package inside

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
)

// Subsystem is the name of this subsystem in steps.
const Subsystem = "inside"

// loopback is the interface that carries the VIPs.
const loopback = "lo"

// State is what is there in one network namespace.
type State struct {
	Links     []Link            `json:"links"`     // sorted by index
	Addresses []Address         `json:"addresses"` // in the kernel's order
	Routes    []Route           `json:"routes"`    // unicast routes of the main table that are ours or where a wanted one belongs
	Sysctls   map[string]string `json:"sysctls"`   // the wanted keys that exist
}

// Link is an interface.
type Link struct {
	Index int        `json:"index"`
	Name  string     `json:"name"`
	Kind  string     `json:"kind"` // as rtnetlink names it: veth, vlan, ...; empty for hardware and virtio
	MAC   policy.MAC `json:"mac"`
	Up    bool       `json:"up"`
}

// Address is one address of an interface.
type Address struct {
	Link      int          `json:"link"` // index
	Prefix    netip.Prefix `json:"prefix"`
	Peer      netip.Prefix `json:"peer,omitzero"`      // the other end, on what was set up as a point-to-point link
	Broadcast netip.Addr   `json:"broadcast,omitzero"` // IPv4 only
	Preferred bool         `json:"preferred"`          // IPv6: its preferred lifetime is not 0
	Lasting   bool         `json:"lasting"`            // it does not run out
	Secondary bool         `json:"secondary"`          // IPv4: it goes with the subnet's first address
	Failed    bool         `json:"failed"`             // IPv6: not usable, its uniqueness is in doubt
}

// Route is one unicast route of the main table. Routes to one destination differ in their metric.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Metric      int          `json:"metric"`
	Via         netip.Addr   `json:"via,omitzero"`
	Link        int          `json:"link"` // index
	Protocol    int          `json:"protocol"`
}

// protocolStatic marks the routes that are ours: no kernel and no routing daemon of the image uses it (RTPROT_STATIC of linux/rtnetlink.h).
const protocolStatic = 4

// metric6 is what the kernel makes of metric 0 for IPv6 (IP6_RT_PRIO_USER of linux/ipv6_route.h).
const metric6 = 1024

// Fresh is the state of a namespace that was just made for a guest, with its interfaces and nothing else: what a plan compares with before
// there is anything to observe.
func Fresh(want policy.Inside) State {
	s := State{Links: []Link{{Index: 1, Name: loopback}}}
	for i, w := range want.Interfaces {
		s.Links = append(s.Links, Link{Index: i + 2, Name: w.Name, Kind: "veth", MAC: w.MAC})
	}
	return s
}

func (s State) link(index int) (Link, bool) {
	for _, l := range s.Links {
		if l.Index == index {
			return l, true
		}
	}
	return Link{}, false
}

func (s State) named(name string) (Link, bool) {
	for _, l := range s.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}
