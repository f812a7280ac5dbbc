package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// topology is everything beside the guests: blades, and at each site a router and whoever lives behind it. Plain data.
type topology struct {
	Blades   []blade
	Sites    []site
	Emulated bool // the machine has no processor of its own, and may stand still for seconds
}

type blade struct {
	Name       string
	Trunk      string
	Management string // empty: none
	Site       int    // its number in Sites
}

// site is a switch that the trunks of its blades meet on, the router of its networks, and a client behind that. Switches of several
// sites are joined by a bridge, and their routers by a network of their own, both of the machine.
type site struct {
	Number   int
	Name     string
	Networks []routedNetwork
	Users    []netip.Addr   // of the client, besides its own
	Routed   []netip.Prefix // led to the client
}

// router and client are the names of a site's places. The first site's are called like those of a lab that has no other.
func (s site) router() string { return s.place("router") }
func (s site) client() string { return s.place("client") }

func (s site) place(kind string) string {
	if s.Number == 0 {
		return kind
	}
	return kind + "-" + s.Name
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
	BFD         policy.BFD
}

// bgpPeer is how the router speaks BGP on a network: it is in AS, directors are in PeerAS.
type bgpPeer struct {
	AS, PeerAS uint32
	BFD        policy.BFD
}

// What the lab itself has beside the fleet's networks, from ranges for benchmarks and documentation (RFC 2544, RFC 3849).
var (
	clientNets4 = netip.MustParsePrefix("198.18.0.0/16")      // behind routers: a /24 of each site
	clientNets6 = netip.MustParsePrefix("2001:db8:c0::/44")   // and a /64
	oobNet      = netip.MustParsePrefix("172.31.255.0/24")    // management interfaces of blades
	backbone4   = netip.MustParsePrefix("172.31.254.0/24")    // routers of several sites
	backbone6   = netip.MustParsePrefix("2001:db8:bb:1::/64") // among themselves
	lab         = []netip.Prefix{clientNets4, clientNets6, oobNet, backbone4, backbone6}
)

const routerOOB = "172.31.255.1"

// client4 and the like are the addresses of a site's leg to its client.
func (s site) client4() string { return fmt.Sprintf("198.18.%d.7", s.Number) }
func (s site) router4() string { return fmt.Sprintf("198.18.%d.1", s.Number) }
func (s site) client6() string { return fmt.Sprintf("2001:db8:c%d::7", s.Number) }
func (s site) router6() string { return fmt.Sprintf("2001:db8:c%d::1", s.Number) }

// routerLinks is the interfaces of a site's router as input of `ip -batch`: the switch that its trunks join, a link per VLAN on top of
// it, and a leg to the client. With several sites its switch and the router itself have a link to the others'.
func (t topology) routerLinks(s site) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("link add sw type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
	line("link set sw addrgenmode none")
	line("link set sw up")
	for i, blade := range t.Blades {
		if blade.Site != s.Number {
			continue
		}
		line("link add %s type veth peer name %s netns %s", trunkPort(i), blade.Trunk, t.spaceOf(i))
		line("link set %s master sw addrgenmode none", trunkPort(i))
		line("link set %s up", trunkPort(i))
	}
	for _, n := range s.Networks {
		line("link add link sw name vlan%d type vlan id %d", n.VLAN, n.VLAN)
		line("link set vlan%d up", n.VLAN)
		for _, a := range n.Addresses {
			line("addr add %s dev vlan%d%s", a, n.VLAN, nodad(a.Addr()))
		}
	}
	line("link add users type veth peer name eth0 netns %s", s.client())
	line("link set users up")
	line("addr add %s/24 dev users", s.router4())
	line("addr add %s/64 dev users nodad", s.router6())
	for _, p := range s.Routed {
		via := s.client4()
		if p.Addr().Is6() {
			via = s.client6()
		}
		line("route add %s via %s", p, via)
	}
	if len(t.Sites) > 1 {
		line("link add trunks type veth peer name trunks%d netns 1", s.Number)
		line("link set trunks master sw addrgenmode none up")
		line("link add backbone type veth peer name backbone%d netns 1", s.Number)
		line("link set backbone up")
		line("addr add 172.31.254.%d/24 dev backbone", s.Number+1)
		line("addr add 2001:db8:bb:1::%x/64 dev backbone nodad", s.Number+1)
	}
	if s.Number == 0 {
		t.oobLinks(line)
	}
	return b.String()
}

// oobLinks is the network of the blades' management interfaces, which is one for all sites.
func (t topology) oobLinks(line func(format string, args ...any)) {
	if t.managed() {
		line("link add oob type bridge stp_state 0 forward_delay 0")
		line("link set oob up")
		line("addr add %s/%d dev oob", routerOOB, oobNet.Bits())
	}
	for i, blade := range t.Blades {
		if blade.Management != "" {
			line("link add oob%d type veth peer name %s netns %s", i, blade.Management, t.spaceOf(i))
			line("link set oob%d master oob up", i)
		}
	}
}

// machineLinks joins the sites as input of `ip -batch`: their switches, and their routers.
func (t topology) machineLinks() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, way := range []string{"trunks", "backbone"} {
		line("link add %s type bridge stp_state 0 forward_delay 0 mcast_snooping 0", way)
		line("link set %s addrgenmode none up", way)
		for _, s := range t.Sites {
			line("link set %s%d master %s addrgenmode none up", way, s.Number, way)
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

// clientLinks is the addresses and routes of a site's client as input of `ip -batch`.
func (s site) clientLinks() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("link set eth0 up")
	line("addr add %s/24 dev eth0", s.client4())
	line("addr add %s/64 dev eth0 nodad", s.client6())
	for _, a := range s.Users {
		line("addr add %s/%d dev lo%s", a, a.BitLen(), nodad(a))
	}
	line("route add default via %s src %s", s.router4(), s.client4())
	line("route add default via %s src %s", s.router6(), s.client6())
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
