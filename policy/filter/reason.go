package filter

import "slices"

// Reason is why a packet is dropped: the name of its counter, in status and in Judge's verdict.
type Reason string

// The reasons. Those of the first block are guards: they stand above every accept.
const (
	UnnamedPort   Reason = "unnamed-port"    // a port of our bridges that the policy does not name
	VLANTag       Reason = "vlan-tag"        // a tagged frame inside a VLAN's bridge
	LinkProtocol  Reason = "link-protocol"   // spanning tree, LLDP and the like: 01:80:c2:00:00:0x
	UnknownType   Reason = "unknown-type"    // neither IPv4, IPv6 nor ARP
	SpoofedMAC    Reason = "spoof-mac"       // not the port's MAC; from the VLAN, the MAC of a guest of this blade
	SpoofedIP     Reason = "spoof-ip"        // not the port's address; from the VLAN, the address of a guest of this blade
	SpoofedVIP    Reason = "spoof-vip"       // from a VIP that the port may not speak as
	SpoofedARP    Reason = "spoof-arp"       // ARP sender that is not the port's MAC and address; from the VLAN, a guest of this blade as sender
	SpoofedND     Reason = "spoof-nd"        // neighbour message for an address or MAC that is not the port's; from the VLAN, for a guest of this blade
	VIPARP        Reason = "vip-arp"         // somebody speaks ARP for a VIP
	VIPND         Reason = "vip-nd"          // somebody speaks neighbour discovery for a VIP
	BadARP        Reason = "arp-form"        // no request or reply for IPv4 on Ethernet, or about a stranger's address
	BadND         Reason = "nd-form"         // neighbour message of a forbidden kind, form or about a stranger's address
	RouterAdvert  Reason = "router-advert"   // router advertisement from where no router is; in IPv4 any, and redirects
	DHCPServer    Reason = "dhcp-server"     // a guest that answers DHCP or DHCPv6
	IPOptions     Reason = "ip-options"      // IPv4 options
	IPv6Extension Reason = "ip6-extension"   // extension headers other than one fragment header
	Storm         Reason = "storm"           // more broadcast and multicast from a guest's port than it may send
	HostBound     Reason = "host-bound"      // between the blade's own stack and a guest's network
	VIPSyn        Reason = "vip-syn"         // a connection opened from a VIP
	Misdirected   Reason = "misdirected"     // to an address or MAC that is not the receiving port's
	Multicast     Reason = "multicast"       // multicast or broadcast that no protocol of ours needs
	VIPPort       Reason = "vip-port"        // to a VIP, but to no port of a service
	VIPClient     Reason = "vip-client"      // to a service, from somebody who is not its client
	VIPNotDR      Reason = "vip-hop"         // a real server got a VIP packet from somebody who is no director
	VIPFragment   Reason = "vip-fragment"    // a fragment to or from a VIP without UDP, or too many
	VIPICMP       Reason = "vip-icmp"        // ICMP to a VIP that quotes no packet of a service, or any from it
	VIPSource     Reason = "vip-source"      // from a VIP, but from no port of a service that the port serves
	ConnLimit     Reason = "conn-limit"      // more connections from or to a guest's port than it may open, or hold
	BadState      Reason = "ct-invalid"      // conntrack calls it invalid
	NoRule        Reason = "no-rule"         // no rule allows it
	HostPolicy    Reason = "host-policy"     // no hosts rule allows it to reach the blade
	HostFromGuest Reason = "host-from-guest" // from a guest's network to or through the blade's own stack
)

// BridgeReasons lists the reasons for which the bridge table drops, sorted; hostReasons those of the host table.
func BridgeReasons() []Reason {
	all := []Reason{
		UnnamedPort, VLANTag, LinkProtocol, UnknownType, SpoofedMAC, SpoofedIP, SpoofedVIP, SpoofedARP, SpoofedND, VIPARP, VIPND,
		BadARP, BadND, RouterAdvert, DHCPServer, IPOptions, IPv6Extension, Storm, HostBound, VIPSyn, Misdirected, Multicast, VIPPort,
		VIPClient, VIPNotDR, VIPFragment, VIPICMP, VIPSource, ConnLimit, BadState, NoRule,
	}
	slices.Sort(all)
	return all
}

func hostReasons() []Reason {
	return []Reason{HostFromGuest, HostPolicy, BadState}
}
