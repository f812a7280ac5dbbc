package filter

// ICMP error types that may reach a VIP: a path's limits and unreachable users (RFC 792, RFC 4443).
var icmpErrors = map[string][]byte{"4": {3, 11, 12}, "6": {1, 2, 3, 4}}

// vipChains judge packets to and from VIPs without connection state: the answer to a request never passes the same bridge.
func vipChains() []Chain {
	var chains []Chain
	for _, f := range families() {
		n := f.suffix
		chains = append(
			chains,
			Chain{Name: "vip-deny" + n, Rules: f.vipDeny()},
			Chain{Name: "to-client" + n, Rules: f.toClient()},
			Chain{Name: "from-vip" + n, Rules: f.fromVIP()},
			Chain{Name: "vip-reply" + n, Rules: f.reply()},
			Chain{Name: "rs-in" + n, Rules: f.toServer()},
			Chain{Name: "dr-out" + n, Rules: f.directRoute()},
			Chain{Name: "to-vip" + n, Rules: f.toVIP()},
		)
	}
	return chains
}

// reply is an answer from a VIP's own port: never the start of a connection, and out of the blade unless the client is here.
func (f family) reply() []Rule {
	var rules []Rule
	if f.suffix == "4" {
		rules = append(rules, f.fragment(follow("from-vip"+f.suffix)))
	}
	return append(
		rules,
		f.bareSyn(f.proto),
		toGroup(deny(Multicast)),
		rule(in(setLinks, OutPort), accept()),
		rule(follow("to-client"+f.suffix)),
	)
}

// bareSyn refuses a connection's first packet. The protocol is the IP header's own, or the one behind a fragment header.
func (f family) bareSyn(protocol Field) Rule {
	return f.rule(is(protocol, number(protoTCP)), masked(TCPFlags, number(0x12), number(0x02)), deny(VIPSyn))
}

// toClient is an answer from a VIP to a guest of this blade, which must be let out by a rule to have asked, or be a director that
// probes the VIP.
func (f family) toClient() []Rule {
	rules := []Rule{
		rule(notIn(setPorts, OutPort), deny(UnnamedPort)),
		f.rule(notIn(f.set(kindOwn), OutPort, EtherDestination, f.dst), deny(Misdirected)),
		f.bareSyn(Protocol),
	}
	for _, flags := range probeAnswers {
		rules = append(rules, f.whole(
			in(f.set(kindProber), OutPort, f.dst),
			is(f.proto, number(protoTCP)), in(f.set(kindServices), f.src, f.proto, SourcePort), masked(TCPFlags, number(flags.mask), number(flags.value)), accept(),
		))
	}
	return append(
		rules,
		f.laterFragment(in(f.set(kindFragVIP), f.src), fragmentLimit, accept()),
		f.rule(in(f.set(kindServices), f.src, f.proto, SourcePort), jump(RulesBackChain)),
		rule(deny(NoRule)),
	)
}

// probeAnswers are the TCP flags of what answers a SYN (RFC 9293, section 3.10.7): of FIN, SYN, RST and ACK just SYN and ACK, or RST and ACK.
var probeAnswers = []struct{ mask, value byte }{{0x17, 0x12}, {0x17, 0x14}}

// toServer is a request that a director routed to a real server of this blade.
func (f family) toServer() []Rule {
	director := in(setDirectors, InPort, EtherSource)
	rules := []Rule{
		f.whole(in(f.set(kindServer), OutPort, f.dst, f.proto, DestinationPort), director, accept()),
		f.laterFragment(in(f.set(kindFragRS), OutPort, f.dst), director, fragmentLimit, accept()),
	}
	rules = append(rules, f.firstFragment(in(f.set(kindServer), OutPort, f.dst, Protocol, DestinationPort), director, accept()))
	rules = append(rules, f.errors(in(f.set(kindAtServer), OutPort, f.dst), director)...)
	return append(
		rules,
		rule(notIn(setDirectors, InPort, EtherSource), deny(VIPNotDR)),
		rule(follow("vip-deny"+f.suffix)),
	)
}

// directRoute is a request that a director of this blade sends on: user's address and VIP untouched, a real server's MAC.
func (f family) directRoute() []Rule {
	rules := []Rule{
		rule(in(setPorts, OutPort), follow("rs-in"+f.suffix)),
		rule(notIn(setLinks, OutPort), deny(UnnamedPort)),
		f.whole(in(f.set(kindServices), f.dst, f.proto, DestinationPort), accept()),
		f.laterFragment(in(f.set(kindFragVIP), f.dst), fragmentLimit, accept()),
	}
	rules = append(rules, f.firstFragment(in(f.set(kindServices), f.dst, Protocol, DestinationPort), accept()))
	rules = append(rules, f.errors(in(f.set(kindVIPs), f.dst))...)
	return append(rules, rule(follow("vip-deny"+f.suffix)))
}

// toVIP is a packet to a VIP that is not plainly a request of an open service.
func (f family) toVIP() []Rule {
	toPort := []Field{OutPort, f.dst, f.proto, DestinationPort}
	client := in(f.set(kindClients), f.src, f.dst, f.proto, DestinationPort)
	rules := []Rule{
		// A guest as client: a rule must let it out; the director's blade then asks whether it is a client of the service.
		rule(in(setPorts, InPort), in(setPorts, OutPort), deny(VIPClient)),
		rule(in(setPorts, InPort), jump(RulesChain)),
		rule(in(setPorts, InPort), deny(NoRule)),
	}
	if f.suffix == "6" {
		rules = append(rules, triedND()...)
	}
	rules = append(
		rules,
		f.whole(in(f.set(kindInClients), toPort...), client, accept()),
		f.whole(in(f.set(kindInClients), toPort...), deny(VIPClient)),
		f.whole(in(f.set(kindIn), toPort...), deny(VIPClient)),
		rule(version(f), in(f.set(kindAtServer), OutPort, f.dst), follow("rs-in"+f.suffix)),
		f.laterFragment(in(f.set(kindFragDir), OutPort, f.dst), fragmentLimit, accept()),
	)
	rules = append(
		rules,
		f.firstFragment(in(f.set(kindIn), OutPort, f.dst, Protocol, DestinationPort), notIn(f.set(kindGuests), f.src), accept()),
		f.firstFragment(
			in(f.set(kindInClients), OutPort, f.dst, Protocol, DestinationPort),
			in(f.set(kindClients), f.src, f.dst, Protocol, DestinationPort), accept(),
		),
	)
	rules = append(rules, f.errors(in(f.set(kindAtDir), OutPort, f.dst))...)
	return append(rules, rule(follow("vip-deny"+f.suffix)))
}

// fromVIP is a packet from a VIP that is no answer from a service's port; its sender was pinned before.
func (f family) fromVIP() []Rule {
	rules := []Rule{
		rule(notIn(setNamed, OutPort), deny(UnnamedPort)),
		rule(in(setLinks, InPort), follow("to-client"+f.suffix)),
		f.bareSyn(Protocol),
		toGroup(deny(Multicast)),
		f.laterFragment(in(f.set(kindFragOut), InPort, f.src), in(setLinks, OutPort), fragmentLimit, accept()),
	}
	rules = append(rules, f.firstFragment(
		in(f.set(kindOut), InPort, f.src, Protocol, SourcePort), in(setLinks, OutPort), accept(),
	))
	return append(
		rules,
		rule(version(f), is(Protocol, number(f.icmp)), deny(VIPICMP)),
		f.fragment(deny(VIPFragment)),
		rule(deny(VIPSource)),
	)
}

func version(f family) Match { return is(EtherType, etherType(f.etherType)) }

// Masks of IPv4's fragment field (RFC 791, section 3.1), without the reserved bit.
var (
	fragmented     = []byte{0x3f, 0xff} // more fragments, or an offset
	fragmentOffset = []byte{0x1f, 0xff}
	moreFragments  = []byte{0x20, 0x00}
)

// whole matches like rule, but for packets in one piece. The test stands behind the first lookup: only a hit pays for it.
func (f family) whole(lookup Lookup, more ...Statement) Rule {
	statements := []Statement{lookup}
	if f.suffix == "4" {
		statements = append(statements, masked(IPv4Fragment, fragmented, []byte{0, 0}))
	}
	return f.rule(append(statements, more...)...)
}

// laterFragment matches a UDP packet's second and further fragments, which carry no ports.
func (f family) laterFragment(more ...Statement) Rule {
	if f.suffix == "4" {
		later := Match{Field: IPv4Fragment, Mask: fragmentOffset, Value: []byte{0, 0}, Not: true}
		return f.rule(append([]Statement{is(IPv4Protocol, number(protoUDP)), later}, more...)...)
	}
	later := Match{Field: IPv6FragmentOffset, Mask: []byte{0xff, 0xf8}, Value: []byte{0, 0}, Not: true}
	return f.rule(append([]Statement{is(IPv6Next, number(protoFrag)), is(IPv6FragmentNext, number(protoUDP)), later}, more...)...)
}

// firstFragment matches the first fragment of a UDP packet. In IPv6 its ports stand behind a fragment header; the kernel finds
// none in a later fragment.
func (f family) firstFragment(more ...Statement) Rule {
	if f.suffix == "4" {
		first := masked(IPv4Fragment, fragmented, moreFragments)
		return f.rule(append([]Statement{is(IPv4Protocol, number(protoUDP)), first}, more...)...)
	}
	first := []Statement{is(IPv6Next, number(protoFrag)), is(IPv6FragmentNext, number(protoUDP)), is(Protocol, number(protoUDP))}
	return f.rule(append(first, more...)...)
}

// errors accepts ICMP errors that quote a packet of a service from the VIP that they are sent to, and counts the others.
func (f family) errors(guard ...Statement) []Rule {
	var rules []Rule
	for _, t := range icmpErrors[f.suffix] {
		match := []Statement{is(f.proto, number(f.icmp)), is(ICMPType, number(t))}
		if f.suffix == "4" {
			match = append(match, masked(IPv4Fragment, fragmented, []byte{0, 0}), is(QuotedHeader4, number(noOptions)))
		}
		match = append(match, guard...)
		rules = append(rules, f.rule(append(match, in(f.set(kindQuote), f.quote...), accept())...))
		if f.suffix == "6" {
			// A big UDP answer goes out in fragments, and it is a fragment that was too big.
			piece := []Field{f.dst, QuotedSource6, QuotedFragmentNext6, QuotedFragmentPort6}
			rules = append(rules, f.rule(append(match, is(QuotedProtocol6, number(protoFrag)), in(f.set(kindQuote), piece...), accept())...))
		}
	}
	return rules
}

// vipDeny names the reason why a packet to a VIP is dropped.
func (f family) vipDeny() []Rule {
	rules := []Rule{rule(version(f), is(Protocol, number(f.icmp)), deny(VIPICMP))}
	return append(rules, f.fragment(deny(VIPFragment)), rule(deny(VIPPort)))
}

// fragment matches any part of a packet in pieces.
func (f family) fragment(more ...Statement) Rule {
	if f.suffix == "4" {
		piece := Match{Field: IPv4Fragment, Mask: fragmented, Value: []byte{0, 0}, Not: true}
		return f.rule(append([]Statement{piece}, more...)...)
	}
	return f.rule(append([]Statement{is(IPv6Next, number(protoFrag))}, more...)...)
}
