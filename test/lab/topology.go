package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// topology is everything beside the guests: blades, the networks that the router is on, and who lives behind it. Plain data.
type topology struct {
	Blades   []blade
	Networks []routedNetwork
	Users    []netip.Addr   // of the client, besides its own
	Routed   []netip.Prefix // led to the client
	Emulated bool           // the machine has no processor of its own, and may stand still for seconds
}

type blade struct {
	Name       string
	Trunk      string
	Management string // empty: none
}

// routedNetwork is one VLAN with the router on it.
type routedNetwork struct {
	Name      string
	VLAN      int
	Addresses []netip.Prefix // the router's, with the subnet's length
	OSPF      *ospfPeer
	BGP       *bgpPeer
}

// ospfPeer is how the router speaks OSPF on a network; times in seconds.
type ospfPeer struct {
	Area        string
	Hello, Dead int
	BFD         bool
}

// bgpPeer is how the router speaks BGP on a network: it is in AS, directors are in PeerAS.
type bgpPeer struct {
	AS, PeerAS uint32
	BFD        bool
}

// Addresses behind the router, from ranges for benchmarks and documentation (RFC 2544, RFC 3849).
var (
	clientNet4 = netip.MustParsePrefix("198.18.0.0/24")
	clientNet6 = netip.MustParsePrefix("2001:db8:c0::/64")
	oobNet     = netip.MustParsePrefix("172.31.255.0/24") // management interfaces of blades
)

const (
	client4, client6 = "198.18.0.7", "2001:db8:c0::7"
	router4, router6 = "198.18.0.1", "2001:db8:c0::1"
	routerOOB        = "172.31.255.1"
)

// routerLinks is the router's interfaces as input of `ip -batch`: the switch that all trunks join, a link per VLAN on top of
// it, and a leg to the client. bladeSpace is the network namespace of a blade by its number, from 0.
func (t topology) routerLinks(bladeSpace func(int) string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("link add sw type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
	line("link set sw addrgenmode none")
	line("link set sw up")
	for i, blade := range t.Blades {
		line("link add %s type veth peer name %s netns %s", trunkPort(i), blade.Trunk, bladeSpace(i))
		line("link set %s master sw addrgenmode none", trunkPort(i))
		line("link set %s up", trunkPort(i))
	}
	for _, n := range t.Networks {
		line("link add link sw name vlan%d type vlan id %d", n.VLAN, n.VLAN)
		line("link set vlan%d up", n.VLAN)
		for _, a := range n.Addresses {
			line("addr add %s dev vlan%d%s", a, n.VLAN, nodad(a.Addr()))
		}
	}
	line("link add users type veth peer name eth0 netns client")
	line("link set users up")
	line("addr add %s/%d dev users", router4, clientNet4.Bits())
	line("addr add %s/%d dev users nodad", router6, clientNet6.Bits())
	for _, p := range t.Routed {
		line("route add %s via %s", p, clientOf(p.Addr()))
	}
	if t.managed() {
		line("link add oob type bridge stp_state 0 forward_delay 0")
		line("link set oob up")
		line("addr add %s/%d dev oob", routerOOB, oobNet.Bits())
	}
	for i, blade := range t.Blades {
		if blade.Management != "" {
			line("link add oob%d type veth peer name %s netns %s", i, blade.Management, bladeSpace(i))
			line("link set oob%d master oob up", i)
		}
	}
	return b.String()
}

// trunkPort is the router's end of a blade's trunk.
func trunkPort(blade int) string { return fmt.Sprintf("trunk%d", blade) }

func (t topology) managed() bool {
	for _, b := range t.Blades {
		if b.Management != "" {
			return true
		}
	}
	return false
}

func nodad(a netip.Addr) string {
	if a.Is6() {
		return " nodad"
	}
	return ""
}

func clientOf(a netip.Addr) string {
	if a.Is6() {
		return client6
	}
	return client4
}

// clientLinks is the client's addresses and routes as input of `ip -batch`.
func (t topology) clientLinks() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("link set eth0 up")
	line("addr add %s/%d dev eth0", client4, clientNet4.Bits())
	line("addr add %s/%d dev eth0 nodad", client6, clientNet6.Bits())
	for _, a := range t.Users {
		line("addr add %s/%d dev lo%s", a, a.BitLen(), nodad(a))
	}
	line("route add default via %s src %s", router4, client4)
	line("route add default via %s src %s", router6, client6)
	return b.String()
}

// bladeLinks is a blade's NICs as input of `ip -batch`: a trunk without an address, and the management address if it has one.
func (t topology) bladeLinks(i int) string {
	blade := t.Blades[i]
	text := fmt.Sprintf("link set %[1]s addrgenmode none\nlink set %[1]s up\n", blade.Trunk)
	if blade.Management != "" {
		text += fmt.Sprintf("link set %[1]s up\naddr add %[2]s/%[3]d dev %[1]s\nroute add default via %[4]s\n",
			blade.Management, t.managementAddress(i), oobNet.Bits(), routerOOB)
	}
	return text
}

// managementAddress is a blade's own address, which policy files do not say.
func (t topology) managementAddress(i int) netip.Addr {
	a := oobNet.Addr().As4()
	a[3] = byte(10 + i)
	return netip.AddrFrom4(a)
}
