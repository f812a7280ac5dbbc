package filter

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
)

// A VIP that is announced by VRRP floats: it lies in the uplink's subnet, and one of two directors has it on eth0. Its neighbours ask for it
// by ARP and neighbour discovery, and what is in this file is the one exception to the rule that nobody speaks either for a VIP. Each of the
// pair, and nobody else, may say that such a VIP is at its own MAC, and the VLAN may ask for it. Which of the two has the VIP cannot be told
// from outside.

// Sets of a pair's floating VIPs and of its VRRP.
const (
	setFloatARP  = "float-arp"    // port or link, MAC as the frame's, MAC as ARP's, VIP: who has it
	setFloatND   = "float-nd"     // port or link, MAC, VIP, link-layer option: the same
	setFloatFrom = "float-from"   // port or link, MAC, VIP: who says so from the VIP itself
	setAskARP    = "float-ask"    // link from which a VIP may be asked for, VIP
	setAskND     = "float-ask-nd" // the same, as target
	setHearND    = "float-hear"   // port of a director at which neighbours may try a VIP, VIP
	setVRRP      = "vrrp"         // ports of directors that announce by VRRP

	kindPair = "vrrp-pair" // port or link of one director, its address, port or link of the other, virtual router
)

func pairLayout() []Set {
	sets := []Set{
		{Name: setFloatARP, Key: []Field{InPort, EtherSource, ARPSenderMAC, ARPSender}},
		{Name: setFloatND, Key: []Field{InPort, EtherSource, NDTarget, NDOption}},
		{Name: setFloatFrom, Key: []Field{InPort, EtherSource, IPv6Source}},
		{Name: setAskARP, Key: []Field{InPort, ARPTarget}},
		{Name: setAskND, Key: []Field{InPort, NDTarget}},
		{Name: setHearND, Key: []Field{OutPort, IPv6Destination}},
		{Name: setVRRP, Key: []Field{InPort}},
	}
	for _, f := range families() {
		sets = append(sets, Set{Name: f.set(kindPair), Key: []Field{InPort, f.src, OutPort, ICMPCode}})
	}
	return sets
}

// fillPair says who tells whom by VRRP, and whose the floating VIPs are.
func (c *compiler) fillPair() {
	for _, p := range c.pair {
		at := c.at(p)
		if at == "" {
			continue
		}
		here := p.Blade == c.b.Name
		if here {
			c.add(setVRRP, ifname(at))
		}
		for _, vip := range floating(c.b, c.segments[p.Network]) {
			c.addFloating(p, vip, at)
			if here {
				c.addAsked(at, c.segments[p.Network].Link, vip)
			}
			for _, other := range c.pair {
				if other.Guest != p.Guest && other.Network == p.Network && (here || other.Blade == c.b.Name) {
					c.addAdvert(p, other, vip)
				}
			}
		}
	}
}

// floating lists the zone's VIPs that lie in a network, each once a service.
func floating(b policy.Blade, s policy.Segment) []netip.Addr {
	var out []netip.Addr
	for _, service := range b.Services {
		for _, vip := range service.VIPs {
			if contains(s.Subnets, vip) {
				out = append(out, vip)
			}
		}
	}
	return out
}

// addFloating lets a director say that a VIP is at its MAC. Another blade's says so from the VLAN.
func (c *compiler) addFloating(p policy.Peer, vip netip.Addr, at string) {
	if vip.Is4() {
		c.add(setFloatARP, ifname(at), mac(p.MAC), mac(p.MAC), addr(vip))
		return
	}
	const targetAddress = 2 // the one option of an advertisement (RFC 4861, section 4.6.1)
	c.add(setFloatND, ifname(at), mac(p.MAC), addr(vip), append([]byte{targetAddress, 1}, p.MAC[:]...))
	c.add(setFloatFrom, ifname(at), mac(p.MAC), addr(vip))
}

// addAsked lets the VLAN ask a director of this blade for a VIP.
func (c *compiler) addAsked(port, link string, vip netip.Addr) {
	if vip.Is4() {
		c.add(setAskARP, ifname(link), addr(vip))
		return
	}
	c.add(setAskND, ifname(link), addr(vip))
	c.add(setHearND, ifname(port), addr(vip))
}

// vrrpAdvertisement is version and type of what a director says, in its first byte; the virtual router is the second (RFC 5798, section 5.2).
const vrrpAdvertisement = 0x31

// addAdvert lets the other director of a pair hear of a VIP's virtual router: from an IPv4 address of eth0, and from the link-local one.
func (c *compiler) addAdvert(from, to policy.Peer, vip netip.Addr) {
	f := familyOf(vip)
	sources := []netip.Addr{policy.LinkLocal(from.MAC)}
	if vip.Is4() {
		sources = from.Addresses
	}
	for _, a := range sources {
		if f.has(a) {
			c.add(f.set(kindPair), ifname(c.at(from)), addr(a), ifname(c.at(to)), number(byte(from.VRRP.Router(vip))))
		}
	}
}

// vrrpPair lets a pair's advertisements pass between its two directors. They come from this link, or their hop limit would be less.
func vrrpPair(f family) Rule {
	near := []Statement{is(IPv6Next, number(protoVRRP)), is(IPv6HopLimit, number(255))}
	if f.suffix == "4" {
		near = []Statement{is(IPv4TTL, number(255)), is(IPv4Protocol, number(protoVRRP))}
	}
	return f.whole(in(f.set(kindPair), InPort, f.src, OutPort, ICMPCode), append(
		near, is(f.dst, address(vrrpGroup[f.suffix])), is(ICMPType, number(vrrpAdvertisement)), accept(),
	)...)
}

// vrrpOut lets a director's own VRRP past the guard against headers that are no transport; whom it reaches is decided later.
func vrrpOut() Rule {
	v6 := is(EtherType, etherType(ipv6.etherType))
	return rule(v6, is(IPv6Next, number(protoVRRP)), in(setVRRP, InPort), in(ipv6.set(kindOwn), InPort, EtherSource, IPv6Source), done())
}

// floatingARP lets a director say to its network that a floating VIP is at its MAC: its kernel does when it is asked, and VRRP's daemon
// when it takes the VIP over.
func floatingARP() Rule {
	arp := is(EtherType, etherType(typeARP))
	return rule(arp, in(setFloatARP, InPort, EtherSource, ARPSenderMAC, ARPSender), in(ipv4.set(kindNet), InPort, ARPTarget), done())
}

// askedARP lets the VLAN ask for a floating VIP, from an address of its own that is no VIP.
func askedARP() []Rule {
	arp, request := is(EtherType, etherType(typeARP)), is(ARPOperation, []byte{0, 1})
	return []Rule{rule(
		arp, request, in(setAskARP, InPort, ARPTarget), in(ipv4.set(kindNet), InPort, ARPSender),
		notIn(ipv4.set(kindLocal), InPort, ARPSender), notIn(ipv4.set(kindVIPs), ARPSender), done(),
	)}
}

// floatingND is floatingARP for IPv6. The advertisement's source is looked at where sources are.
func floatingND() Rule {
	return icmp6(is(ICMPType, number(ndAdvertise)), length(ndOption), in(setFloatND, InPort, EtherSource, NDTarget, NDOption), done())
}

// fromFloating lets such an advertisement have the VIP itself as its source, as the kernel's and the daemon's have (ndisc_send_na in
// net/ipv6/ndisc.c).
func fromFloating(end Statement, more ...Statement) Rule {
	match := []Statement{
		is(ICMPType, number(ndAdvertise)),
		in(setFloatFrom, InPort, EtherSource, IPv6Source), in(setFloatND, InPort, EtherSource, NDTarget, NDOption),
	}
	return icmp6(append(append(match, more...), end)...)
}

// askedND is askedARP for IPv6; who asks was looked at before.
func askedND() Rule {
	return icmp6(
		is(ICMPType, number(ndSolicit)), isNot(IPv6Source, address("::")), notIn(ipv6.set(kindVIPs), IPv6Source), in(setAskND, InPort, NDTarget), done(),
	)
}

// triedND lets a neighbour try whether a floating VIP is still where it was (RFC 4861, section 7.3): it asks the VIP itself, and what is for
// a VIP comes past the guards of prerouting.
func triedND() []Rule {
	tried := []Statement{is(ICMPType, number(ndSolicit)), in(setHearND, OutPort, IPv6Destination)}
	return []Rule{icmp6(append(tried, jump("link-nd"))...), icmp6(append(tried, accept())...)}
}
