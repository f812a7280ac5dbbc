package filter

import "slices"

// Chains that rules go to by name.
const (
	chainFromGuest = "from-guest"
	chainFromLink  = "from-link"

	// RulesChain and RulesBackChain hold the rules of the policy, each with a counter and its name as comment.
	RulesChain     = "rules"
	RulesBackChain = "rules-back"
)

// EtherTypes (IANA).
const (
	typeARP   = 0x0806
	typeVLAN  = 0x8100
	typeQinQ  = 0x88a8
	noOptions = 0x45 // IPv4, header of five words
)

var (
	linkProtocols     = []byte{0x01, 0x80, 0xc2, 0x00, 0x00, 0x00} // and 15 more: never for a bridge to pass (IEEE 802.1Q, table 8-1)
	linkProtocolsMask = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}
	groupBit          = []byte{0x01, 0, 0, 0, 0, 0}
	arpOverEthernet   = []byte{0x00, 0x01, 0x08, 0x00, 0x06, 0x04}
)

// guardChains judge who speaks, before conntrack sees the packet. Nothing in them accepts for good: done goes on to forward.
// A load beyond the packet's end makes its rule not match, a negative one too; so a guest's chain ends with what must hold,
// then a deny.
func guardChains() []Chain {
	return []Chain{
		{Name: "guest-arp", Rules: guestARP()},
		{Name: "guest-nd", Rules: guestND()},
		{Name: "guest-icmp6", Rules: guestICMPv6()},
		{Name: "guest4", Rules: guestIPv4()},
		{Name: "guest6", Rules: guestIPv6()},
		{Name: "link-arp", Rules: linkARP()},
		{Name: "link-nd", Rules: linkND()},
		{Name: "link-icmp6", Rules: linkICMPv6()},
		{Name: "link4", Rules: linkIPv4()},
		{Name: "link6", Rules: linkIPv6()},
		{Name: chainFromGuest, Rules: append(frameGuards(true), byType("guest")...)},
		{Name: chainFromLink, Rules: append(frameGuards(false), byType("link")...)},
		{Name: "prerouting", Hook: Prerouting, Priority: -300, Rules: prerouting()},
	}
}

// prerouting lets a VIP's packets through in one lookup that pins port, MAC and address, and marks them untracked.
func prerouting() []Rule {
	var rules []Rule
	for _, f := range families() {
		rules = append(
			rules,
			f.rule(in(f.set(kindVIPSpeak), InPort, EtherSource, f.src), Notrack{}, done()),
			f.rule(in(f.set(kindVIPLink), InPort, f.dst), Notrack{}, done()),
			f.rule(in(f.set(kindHop), InPort, EtherSource, EtherDestination, f.dst), Notrack{}, done()),
		)
	}
	return append(rules, rule(Dispatch{Field: InPort, Map: setRoles}), rule(in(setBridges, InBridge), deny(UnnamedPort)))
}

func frameGuards(guest bool) []Rule {
	rules := []Rule{
		rule(is(EtherType, etherType(typeVLAN)), deny(VLANTag)),
		rule(is(EtherType, etherType(typeQinQ)), deny(VLANTag)),
		rule(masked(EtherDestination, linkProtocolsMask, linkProtocols), deny(LinkProtocol)),
	}
	if !guest {
		return append(rules, rule(in(setLocalMACs, EtherSource), deny(SpoofedMAC)))
	}
	return append(
		rules,
		rule(notIn(setMACs, InPort, EtherSource), deny(SpoofedMAC)),
		toGroup(Meter{Field: InPort, Set: setStorm, Rate: stormLimit}, deny(Storm)),
	)
}

func byType(side string) []Rule {
	return []Rule{
		rule(is(EtherType, etherType(ipv4.etherType)), follow(side+"4")),
		rule(is(EtherType, etherType(ipv6.etherType)), follow(side+"6")),
		rule(is(EtherType, etherType(typeARP)), follow(side+"-arp")),
		rule(deny(UnknownType)),
	}
}

// arpForm holds on both sides: requests and replies of IPv4 over Ethernet.
func arpForm() []Rule {
	arp := is(EtherType, etherType(typeARP))
	return []Rule{
		rule(arp, isNot(ARPHeader, arpOverEthernet), deny(BadARP)),
		rule(arp, isNot(ARPOperation, []byte{0, 1}), isNot(ARPOperation, []byte{0, 2}), deny(BadARP)),
	}
}

// arpVIPs hold on both sides: never for or from a VIP.
func arpVIPs() []Rule {
	arp := is(EtherType, etherType(typeARP))
	return []Rule{
		rule(arp, in(ipv4.set(kindVIPs), ARPSender), deny(VIPARP)),
		rule(arp, in(ipv4.set(kindVIPs), ARPTarget), deny(VIPARP)),
	}
}

func guestARP() []Rule {
	arp := is(EtherType, etherType(typeARP))
	own := ipv4.set(kindOwn)
	return slices.Concat(arpForm(), []Rule{floatingARP()}, arpVIPs(), []Rule{
		// A probe for its own address (RFC 5227) has no sender yet.
		rule(arp, is(ARPSender, address("0.0.0.0")), in(own, InPort, ARPSenderMAC, ARPTarget), done()),
		rule(arp, notIn(own, InPort, ARPSenderMAC, ARPSender), deny(SpoofedARP)),
		rule(arp, in(ipv4.set(kindNet), InPort, ARPTarget), done()),
		rule(deny(BadARP)),
	})
}

func linkARP() []Rule {
	arp := is(EtherType, etherType(typeARP))
	return slices.Concat(arpForm(), []Rule{floatingARP()}, askedARP(), arpVIPs(), []Rule{
		rule(arp, isNot(ARPSender, address("0.0.0.0")), notIn(ipv4.set(kindNet), InPort, ARPSender), deny(BadARP)),
		rule(arp, in(ipv4.set(kindLocal), InPort, ARPSender), deny(SpoofedARP)),
		rule(arp, in(ipv4.set(kindNet), InPort, ARPTarget), done()),
		rule(deny(BadARP)),
	})
}

// icmpRouting are ICMP types by which a host changes its routes: redirect, router advertisement and solicitation (RFC 792, 1256).
// Routes are configured, on guests and on routers.
var icmpRouting = []byte{5, 9, 10}

func routingICMPv4() []Rule {
	var rules []Rule
	for _, t := range icmpRouting {
		rules = append(rules, rule(is(EtherType, etherType(ipv4.etherType)), is(Protocol, number(protoICMP)), is(ICMPType, number(t)), deny(RouterAdvert)))
	}
	return rules
}

func guestIPv4() []Rule {
	v4 := is(EtherType, etherType(ipv4.etherType))
	return slices.Concat([]Rule{rule(v4, isNot(IPv4Header, number(noOptions)), deny(IPOptions))}, routingICMPv4(), []Rule{
		rule(v4, is(Protocol, number(protoUDP)), is(SourcePort, port(67)), deny(DHCPServer)),
		rule(v4, in(ipv4.set(kindVIPs), IPv4Source), deny(SpoofedVIP)),
		rule(v4, in(ipv4.set(kindVIPs), IPv4Destination), Notrack{}),
		rule(v4, in(ipv4.set(kindOwn), InPort, EtherSource, IPv4Source), done()),
		rule(deny(SpoofedIP)),
	})
}

func linkIPv4() []Rule {
	v4 := is(EtherType, etherType(ipv4.etherType))
	return slices.Concat([]Rule{rule(v4, isNot(IPv4Header, number(noOptions)), deny(IPOptions))}, routingICMPv4(), []Rule{
		rule(v4, in(ipv4.set(kindLocal), InPort, IPv4Source), deny(SpoofedIP)),
		rule(v4, in(ipv4.set(kindVIPs), IPv4Source), Notrack{}),
		rule(v4, in(ipv4.set(kindVIPs), IPv4Destination), Notrack{}),
	})
}

// headerGuards let through what carries a transport directly, or one fragment header before it.
func headerGuards(protocols ...byte) []Rule {
	v6 := is(EtherType, etherType(ipv6.etherType))
	direct := []Statement{v6, isNot(IPv6Next, number(protoFrag))}
	for _, p := range protocols {
		direct = append(direct, isNot(IPv6Next, number(p)))
	}
	fragment := []Statement{v6, is(IPv6Next, number(protoFrag))}
	for _, p := range []byte{protoTCP, protoUDP, protoICMPv6} {
		fragment = append(fragment, isNot(IPv6FragmentNext, number(p)))
	}
	return []Rule{rule(append(direct, deny(IPv6Extension))...), rule(append(fragment, deny(IPv6Extension))...)}
}

func guestIPv6() []Rule {
	v6 := is(EtherType, etherType(ipv6.etherType))
	return append(
		append([]Rule{vrrpOut()}, headerGuards(protoTCP, protoUDP, protoICMPv6, protoOSPF)...),
		rule(v6, is(Protocol, number(protoICMPv6)), jump("guest-icmp6")),
		rule(v6, is(Protocol, number(protoUDP)), is(SourcePort, port(547)), deny(DHCPServer)),
		fromFloating(done(), Notrack{}),
		rule(v6, in(ipv6.set(kindVIPs), IPv6Source), deny(SpoofedVIP)),
		// A neighbour solicitation without a source has passed its own guard.
		rule(v6, is(IPv6Source, address("::")), is(Protocol, number(protoICMPv6)), is(ICMPType, number(ndSolicit)), done()),
		rule(v6, in(ipv6.set(kindVIPs), IPv6Destination), Notrack{}),
		rule(v6, in(ipv6.set(kindOwn), InPort, EtherSource, IPv6Source), done()),
		rule(deny(SpoofedIP)),
	)
}

func linkIPv6() []Rule {
	v6 := is(EtherType, etherType(ipv6.etherType))
	return append(
		headerGuards(protoTCP, protoUDP, protoICMPv6, protoOSPF, protoVRRP),
		rule(v6, is(Protocol, number(protoICMPv6)), jump("link-icmp6")),
		rule(v6, in(ipv6.set(kindLocal), InPort, IPv6Source), deny(SpoofedIP)),
		rule(v6, in(ipv6.set(kindVIPs), IPv6Source), Notrack{}),
		rule(v6, in(ipv6.set(kindVIPs), IPv6Destination), Notrack{}),
	)
}
