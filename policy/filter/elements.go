package filter

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// place is where a port stands on the path of a VIP's packets.
type place int

const (
	nowhere         place = iota
	directorUplink        // eth0 of a director: requests arrive
	directorService       // eth1 of a director: requests leave for a real server
	serverService         // eth1 of a real server: requests arrive
	serverReturn          // eth0 of a real server: answers leave
)

func (c *compiler) placeOf(p policy.Port) place { return placeOf(p.Role, c.segments[p.Network].Role) }

func placeOf(role policy.Role, network policy.NetworkRole) place {
	switch {
	case role == policy.RoleDirector && network == policy.NetworkUplink:
		return directorUplink
	case role == policy.RoleDirector && network == policy.NetworkService:
		return directorService
	case role == policy.RoleRealServer && network == policy.NetworkService:
		return serverService
	case role == policy.RoleRealServer && network == policy.NetworkReturn:
		return serverReturn
	}
	return nowhere
}

// fillPorts says which ports there are, and who speaks from them with which addresses.
func (c *compiler) fillPorts() {
	for _, s := range c.b.Segments {
		c.add(setBridges, ifname(s.Bridge))
		c.add(setLinks, ifname(s.Link))
		c.add(setNamed, ifname(s.Link))
		c.addRole(s.Link, chainFromLink)
		c.addNetwork(s.Link, s)
		for _, r := range s.Routers {
			c.add(familyOf(r).set(kindRouters), ifname(s.Link), addr(r))
			if r.Is6() {
				c.add(setRALinks, ifname(s.Link))
			}
		}
	}
	for _, g := range c.b.Guests {
		for _, p := range g.Ports {
			c.addPort(p)
		}
	}
	for _, a := range c.b.GuestAddresses {
		c.add(familyOf(a).set(kindGuests), addr(a))
	}
}

func (c *compiler) addRole(port, chain string) {
	s := c.sets[setRoles]
	s.Elements = append(s.Elements, Element{From: key(ifname(port)), Goto: chain})
}

func (c *compiler) addPort(p policy.Port) {
	name, link := ifname(p.Name), ifname(c.segments[p.Network].Link)
	c.add(setNamed, name)
	c.add(setPorts, name)
	c.add(setMACs, name, mac(p.MAC))
	c.addRole(p.Name, chainFromGuest)
	c.addNetwork(p.Name, c.segments[p.Network])
	for _, a := range append(slices.Clone(p.Addresses), policy.LinkLocal(p.MAC)) {
		c.add(familyOf(a).set(kindOwn), name, mac(p.MAC), addr(a))
		c.add(familyOf(a).set(kindLocal), link, addr(a))
		if a.Is6() {
			c.add(setNDTargets, name, addr(a))
			c.add(setNDLocal, link, addr(a))
		}
	}
	if c.placeOf(p) == directorUplink {
		for _, a := range p.Addresses {
			c.add(familyOf(a).set(kindProber), name, addr(a))
		}
	}
	c.add(setLocalMACs, mac(p.MAC))
	for _, option := range []byte{1, 2} { // source and target link-layer address (RFC 4861, section 4.6.1)
		c.add(setNDOptions, name, append([]byte{option, 1}, p.MAC[:]...))
	}
}

func (c *compiler) addNetwork(port string, s policy.Segment) {
	name := exactly(ifname(port))
	for _, f := range families() {
		for _, subnet := range mergePrefixes(s.Subnets, f) {
			c.addSpan(f.set(kindNet), name, subnet)
			if f.suffix == "6" {
				c.addSpan(setNDNetworks, name, subnet)
			}
		}
	}
	c.addSpan(setNDNetworks, name, prefixSpan(linkLocal))
}

var linkLocal = netip.MustParsePrefix("fe80::/64")

// fillVIPs says who may speak and hear as a VIP.
func (c *compiler) fillVIPs() {
	for _, s := range c.b.Services {
		for _, vip := range s.VIPs {
			c.addVIP(s, vip)
		}
	}
	for _, p := range c.directors {
		c.addDirector(p)
	}
}

// fillSync says who hears of whose connections: directors that have a number and a network in common.
func (c *compiler) fillSync() {
	for _, from := range c.directors {
		for _, to := range c.directors {
			// Nothing between two other blades passes this one.
			if from.Sync == 0 || from.Sync != to.Sync || from.Network != to.Network || from.Guest == to.Guest || from.Blade != c.b.Name && to.Blade != c.b.Name {
				continue
			}
			for _, a := range from.Addresses {
				if a.Is4() {
					c.add(setSync, ifname(c.at(from)), addr(a), ifname(c.at(to)))
				}
			}
		}
	}
}

// at is by which interface of its bridge a guest speaks: its port, or the VLAN link when it is on another blade. It is empty where the
// blade has no such network.
func (c *compiler) at(p policy.Peer) string {
	if p.Blade == c.b.Name {
		return policy.PortName(p.Guest, p.Interface)
	}
	return c.segments[p.Network].Link
}

// addDirector pins a director's MAC to its port, or to the VLAN link when it is on another blade: what has the MAC and comes from
// elsewhere is not the director's.
func (c *compiler) addDirector(p policy.Peer) {
	if at := c.at(p); at != "" {
		c.add(setDirectors, ifname(at), mac(p.MAC))
	}
}

func (c *compiler) addVIP(s policy.Service, vip netip.Addr) {
	f := familyOf(vip)
	c.add(f.set(kindVIPs), addr(vip))
	if f.suffix == "6" {
		c.add(setNDVIPs, addr(vip))
	}
	for _, segment := range c.b.Segments {
		if segment.Role != policy.NetworkReturn {
			c.add(f.set(kindVIPLink), ifname(segment.Link), addr(vip))
		}
	}
	for _, g := range c.b.Guests {
		for _, p := range g.Ports {
			c.addVIPAt(p, s, vip, f)
		}
	}
	each := func(proto byte, n uint16) {
		c.add(f.set(kindServices), addr(vip), number(proto), port(n))
		c.add(f.set(kindQuote), addr(vip), addr(vip), number(proto), port(n))
	}
	eachPort(s, each)
	if servesUDP(s) {
		c.add(f.set(kindFragVIP), addr(vip))
	}
	for _, proto := range []policy.Protocol{policy.TCP, policy.UDP} {
		for _, client := range mergePrefixes(s.Clients, f) {
			for _, ports := range mergePorts(s.Ports, proto) {
				c.addSpan(f.set(kindClients), client, exactly(addr(vip)), exactly(number(protocolNumber(proto, f))), ports)
			}
		}
	}
}

// addVIPAt says what one port of this blade does with a service's VIP.
func (c *compiler) addVIPAt(p policy.Port, s policy.Service, vip netip.Addr, f family) {
	name, v := ifname(p.Name), addr(vip)
	switch c.placeOf(p) {
	case directorUplink:
		kind := kindIn
		if len(s.Clients) > 0 {
			kind = kindInClients
		}
		eachPort(s, func(proto byte, n uint16) { c.add(f.set(kind), name, v, number(proto), port(n)) })
		c.add(f.set(kindAtDir), name, v)
		if servesUDP(s) {
			c.add(f.set(kindFragDir), name, v)
		}
	case directorService:
		for _, server := range s.Servers {
			if peer, ok := c.behind[server]; ok {
				c.add(f.set(kindHop), name, mac(p.MAC), mac(peer.MAC), v)
			}
		}
	case serverService:
		if slices.Contains(s.Servers, p.Guest) {
			eachPort(s, func(proto byte, n uint16) { c.add(f.set(kindServer), name, v, number(proto), port(n)) })
			c.add(f.set(kindAtServer), name, v)
			if servesUDP(s) {
				c.add(f.set(kindFragRS), name, v)
			}
		}
	case serverReturn:
		if slices.Contains(s.Servers, p.Guest) {
			eachPort(s, func(proto byte, n uint16) { c.add(f.set(kindOut), name, v, number(proto), port(n)) })
			c.add(f.set(kindVIPSpeak), name, mac(p.MAC), v)
			if servesUDP(s) {
				c.add(f.set(kindFragOut), name, v)
			}
		}
	}
}

// eachPort calls do for each port of a service: the sets on a packet's way hold no ranges, which cost it half as much again.
func eachPort(s policy.Service, do func(proto byte, n uint16)) {
	for _, r := range s.Ports {
		if r.Protocol == policy.ICMP {
			continue // a VIP answers no echo: a director would answer for servers that may be gone
		}
		for n := int(r.First); n <= int(r.Last); n++ {
			do(protocolNumber(r.Protocol, ipv4), uint16(n))
		}
	}
}

func servesUDP(s policy.Service) bool {
	return slices.ContainsFunc(s.Ports, func(r policy.PortRange) bool { return r.Protocol == policy.UDP })
}

// fillFlows says which connections follow from the policy without a rule: health checks and routing protocols.
func (c *compiler) fillFlows() {
	for _, s := range c.b.Services {
		for _, name := range s.Servers {
			server, ok := c.behind[name]
			if !ok {
				continue
			}
			for _, director := range c.directors {
				if director.Blade == c.b.Name || server.Blade == c.b.Name { // nobody else's checks pass this blade
					c.addFlows(director.Addresses, server.Addresses, s.Checks)
				}
			}
		}
	}
	for _, g := range c.b.Guests {
		if g.Balancer == nil {
			continue
		}
		for _, p := range g.Ports {
			if c.placeOf(p) == directorUplink {
				c.addAnnounce(p, g.Balancer.Announce)
			}
		}
	}
}

func (c *compiler) addFlows(from, to []netip.Addr, allow []policy.PortRange) {
	for _, a := range from {
		for _, b := range to {
			if a.Is4() != b.Is4() {
				continue
			}
			f := familyOf(a)
			for _, r := range allow {
				for n := int(r.First); n <= int(r.Last) && r.Protocol != policy.ICMP; n++ {
					c.add(f.set(kindDerived), addr(a), addr(b), number(protocolNumber(r.Protocol, f)), port(uint16(n)))
				}
			}
		}
	}
}

// bfdPorts are BFD's control packets over one hop (RFC 5881) and several (RFC 5883).
var (
	bfdPorts = []policy.PortRange{{Protocol: policy.UDP, First: 3784, Last: 3784}, {Protocol: policy.UDP, First: 4784, Last: 4784}}
	bgpPorts = []policy.PortRange{{Protocol: policy.TCP, First: 179, Last: 179}}
)

func (c *compiler) addAnnounce(p policy.Port, a policy.Announce) {
	routers := a.Routers
	if len(routers) == 0 {
		routers = c.segments[p.Network].Routers
	}
	both := func(allow []policy.PortRange) {
		c.addFlows(p.Addresses, routers, allow)
		c.addFlows(routers, p.Addresses, allow)
	}
	if a.OSPF != nil {
		c.add(setOSPF, ifname(p.Name))
		for _, r := range routers {
			c.add(familyOf(r).set(kindNeighbour), ifname(p.Name), addr(r))
		}
	}
	if a.BGP != nil {
		both(bgpPorts)
	}
	if a.Watched().Enabled() {
		both(bfdPorts)
		c.add(setBFD, ifname(p.Name))
	}
}
