package filter

// ICMPv6 types of neighbour discovery and multicast listeners (RFC 4861, 2710, 3810).
const (
	mldQuery    = 130
	mldReport   = 131
	mldDone     = 132
	ndRouterAsk = 133
	ndRouter    = 134
	ndSolicit   = 135
	ndAdvertise = 136
	ndRedirect  = 137
	mldReportV2 = 143
)

// Lengths of neighbour messages behind the IPv6 header: none, or one option of eight bytes.
const (
	ndBare   = 24
	ndOption = 32
)

// optionNonce is type and length of the option that tells an own duplicate-address probe from another's (RFC 7527).
const optionNonce = 0x0e01

func icmp6(more ...Statement) Rule {
	return rule(append([]Statement{is(EtherType, etherType(ipv6.etherType)), is(Protocol, number(protoICMPv6))}, more...)...)
}

func length(n uint16) Match { return is(IPv6Length, port(n)) }

// guestICMPv6 sends a guest's neighbour messages to their guards. No multicast is snooped, so that listener reports and queries
// serve nobody; routers are asked nothing, routes are configured.
func guestICMPv6() []Rule {
	return []Rule{
		icmp6(is(ICMPType, number(ndSolicit)), jump("guest-nd")),
		icmp6(is(ICMPType, number(ndAdvertise)), jump("guest-nd")),
		icmp6(is(ICMPType, number(ndRouter)), deny(RouterAdvert)),
		icmp6(is(ICMPType, number(ndRouterAsk)), deny(BadND)),
		icmp6(is(ICMPType, number(ndRedirect)), deny(BadND)),
		icmp6(is(ICMPType, number(mldQuery)), deny(Multicast)),
		icmp6(is(ICMPType, number(mldReport)), deny(Multicast)),
		icmp6(is(ICMPType, number(mldDone)), deny(Multicast)),
		icmp6(is(ICMPType, number(mldReportV2)), deny(Multicast)),
	}
}

// ndForm holds for every neighbour message: directly behind the IPv6 header, so unfragmented (RFC 6980), and from this link.
func ndForm() []Rule {
	return []Rule{
		icmp6(isNot(IPv6Next, number(protoICMPv6)), deny(BadND)),
		icmp6(isNot(IPv6HopLimit, number(255)), deny(BadND)),
		icmp6(isNot(ICMPCode, number(0)), deny(BadND)),
	}
}

// guestND pins a solicitation or advertisement to its port: who asks, who answers, for what, and with which MAC. Forms other than
// those that a kernel sends are refused, so that no second option can say something else than the first.
func guestND() []Rule {
	source := []Field{InPort, EtherSource, IPv6Source}
	target := []Field{InPort, NDTarget}
	option := in(setNDOptions, InPort, NDOption)
	solicit, advertise := is(ICMPType, number(ndSolicit)), is(ICMPType, number(ndAdvertise))
	unspecified := is(IPv6Source, address("::"))
	return append(
		ndForm(),
		floatingND(),
		icmp6(in(setNDVIPs, NDTarget), deny(VIPND)),
		icmp6(notIn(setNDNetworks, InPort, NDTarget), deny(BadND)),
		icmp6(unspecified, solicit, notIn(setNDTargets, target...), deny(SpoofedND)),
		icmp6(unspecified, solicit, length(ndBare), done()),
		icmp6(unspecified, solicit, length(ndOption), is(NDOptionType, port(optionNonce)), done()),
		icmp6(notIn(ipv6.set(kindOwn), source...), deny(SpoofedND)),
		icmp6(advertise, notIn(setNDTargets, target...), deny(SpoofedND)),
		icmp6(length(ndBare), done()),
		icmp6(length(ndOption), option, done()),
		icmp6(length(ndOption), deny(SpoofedND)),
		rule(deny(BadND)),
	)
}

// linkICMPv6 guards what comes in from the VLAN: nobody answers for a VIP, and routers are where the policy says.
func linkICMPv6() []Rule {
	return []Rule{
		icmp6(is(ICMPType, number(mldQuery)), deny(Multicast)),
		icmp6(is(ICMPType, number(mldReport)), deny(Multicast)),
		icmp6(is(ICMPType, number(mldDone)), deny(Multicast)),
		icmp6(is(ICMPType, number(mldReportV2)), deny(Multicast)),
		icmp6(is(ICMPType, number(ndRouterAsk)), deny(BadND)),
		icmp6(is(ICMPType, number(ndRedirect)), deny(BadND)),
		icmp6(is(ICMPType, number(ndRouter)), notIn(setRALinks, InPort), deny(RouterAdvert)),
		icmp6(is(ICMPType, number(ndRouter)), jump("link-nd")),
		icmp6(is(ICMPType, number(ndSolicit)), jump("link-nd")),
		icmp6(is(ICMPType, number(ndAdvertise)), jump("link-nd")),
	}
}

func linkND() []Rule {
	fromLink := masked(IPv6Source, address("ffc0::"), address("fe80::"))
	return append(
		ndForm(),
		icmp6(is(ICMPType, number(ndRouter)), fromLink, done()),
		icmp6(is(ICMPType, number(ndRouter)), deny(RouterAdvert)),
		icmp6(in(ipv6.set(kindLocal), InPort, IPv6Source), deny(SpoofedND)),
		floatingND(),
		askedND(),
		icmp6(in(setNDVIPs, NDTarget), deny(VIPND)),
		// A guest's address is asked for from there, but neither announced nor probed for.
		icmp6(is(ICMPType, number(ndAdvertise)), in(setNDLocal, InPort, NDTarget), deny(SpoofedND)),
		icmp6(is(IPv6Source, address("::")), in(setNDLocal, InPort, NDTarget), deny(SpoofedND)),
		icmp6(in(setNDNetworks, InPort, NDTarget), done()),
		rule(deny(BadND)),
	)
}
