package filter

// fragmentLimit bounds non-first fragments, which name no port: so many a second on each way, both families apart.
var fragmentLimit = Limit{PerSecond: 2000, Burst: 400}

// Multicast groups of OSPF (RFC 2328, appendix A.1; RFC 5340) and VRRP (RFC 5798).
var (
	ospfGroups = map[string][]string{"4": {"224.0.0.5", "224.0.0.6"}, "6": {"ff02::5", "ff02::6"}}
	vrrpGroup  = map[string]string{"4": "224.0.0.18", "6": "ff02::12"}
)

// Where the kernel's IPVS tells of its connections (IP_VS_SYNC_GROUP and IP_VS_SYNC_PORT of net/netfilter/ipvs/ip_vs_sync.c).
const (
	syncGroup = "224.0.0.81"
	syncPort  = 8848
)

// forwardChains judge who may hear. The first rules are a VIP packet's whole way: exact sets that name the port, then accept.
func forwardChains() []Chain {
	return []Chain{
		{Name: "routing", Rules: routing()},
		{Name: "judge", Rules: judge()},
		{Name: "forward", Hook: Forward, Priority: 0, Rules: forward()},
	}
}

func forward() []Rule {
	var rules []Rule
	for _, f := range families() {
		toPort := []Field{OutPort, f.dst, f.proto, DestinationPort}
		rules = append(
			rules,
			f.whole(in(f.set(kindIn), toPort...), notIn(f.set(kindGuests), f.src), accept()),
			f.whole(in(f.set(kindServer), toPort...), in(setDirectors, InPort, EtherSource), accept()),
			f.rule(in(f.set(kindOut), InPort, f.src, f.proto, SourcePort), follow("vip-reply"+f.suffix)),
			f.rule(in(f.set(kindHop), InPort, EtherSource, EtherDestination, f.dst), follow("dr-out"+f.suffix)),
		)
	}
	return append(rules, rule(in(setBridges, InBridge), follow("judge")))
}

// judge is the way of everything that no exact set let through.
func judge() []Rule {
	rules := []Rule{
		rule(notIn(setNamed, InPort), deny(UnnamedPort)),
		rule(notIn(setNamed, OutPort), deny(UnnamedPort)),
		rule(is(EtherType, etherType(typeARP)), accept()),
	}
	for _, f := range families() {
		version := is(EtherType, etherType(f.etherType))
		rules = append(rules, rule(version, in(f.set(kindVIPs), f.dst), follow("to-vip"+f.suffix)))
		if f.suffix == "6" {
			rules = append(rules, fromFloating(accept()))
		}
		rules = append(rules, rule(version, in(f.set(kindVIPs), f.src), follow("from-vip"+f.suffix)))
	}
	for _, t := range []byte{ndSolicit, ndAdvertise, ndRouter} {
		rules = append(rules, icmp6(is(ICMPType, number(t)), accept()))
	}
	rules = append(rules, rule(jump("routing")), toGroup(deny(Multicast)))
	for _, f := range families() {
		version := is(EtherType, etherType(f.etherType))
		rules = append(rules, rule(version, masked(f.dst, f.groups, f.groups), deny(Multicast)))
		rules = append(rules, rule(version, in(setPorts, OutPort), notIn(f.set(kindOwn), OutPort, EtherDestination, f.dst), deny(Misdirected)))
	}
	rules = append(
		rules,
		rule(anyState(stateEstablished|stateRelated), accept()),
		rule(anyState(stateInvalid), deny(BadState)),
	)
	for _, f := range families() {
		rules = append(rules, f.rule(in(f.set(kindDerived), f.src, f.dst, f.proto, DestinationPort), follow(chainAdmitCheck)))
	}
	return append(rules, rule(jump(RulesChain)), rule(deny(NoRule)))
}

// toGroup matches frames for more than one receiver.
func toGroup(more ...Statement) Rule {
	return rule(append([]Statement{masked(EtherDestination, groupBit, groupBit)}, more...)...)
}

func anyState(bits uint32) Match { return Match{Field: ConnState, Value: states(bits)} }

// routing lets a director's routing protocols speak with its routers: multicast, and what they say to each other directly. IPv6
// ones speak from link-local addresses, which a router's policy entry does not name.
func routing() []Rule {
	var rules []Rule
	for _, f := range families() {
		out := []Statement{is(f.proto, number(protoOSPF)), in(setOSPF, InPort), in(setLinks, OutPort)}
		back := []Statement{is(f.proto, number(protoOSPF)), in(setOSPF, OutPort), in(setLinks, InPort)}
		fromRouter := [][]Statement{append(back, in(f.set(kindNeighbour), OutPort, f.src))}
		toRouter := [][]Statement{append(out, in(f.set(kindNeighbour), InPort, f.dst))}
		if f.suffix == "6" {
			fromRouter = [][]Statement{append(back, isLinkLocal(f.src))}
			toRouter = [][]Statement{append(out, isLinkLocal(f.dst))}
		}
		for _, group := range ospfGroups[f.suffix] {
			rules = append(rules, f.rule(append(out, is(f.dst, address(group)), accept())...))
			for _, from := range fromRouter {
				rules = append(rules, f.rule(append(from, is(f.dst, address(group)), accept())...))
			}
		}
		for _, to := range toRouter {
			rules = append(rules, f.rule(append(to, accept())...))
		}
		for _, from := range fromRouter {
			rules = append(rules, f.rule(append(from, in(f.set(kindOwn), OutPort, EtherDestination, f.dst), accept())...))
		}
		rules = append(rules, vrrp(f), vrrpPair(f))
	}
	return append(append(rules, bfdLinkLocal()...), ipvsSync())
}

// ipvsSync lets directors of one number hear of each other's connections, and nobody else.
func ipvsSync() Rule {
	return ipv4.whole(
		in(setSync, InPort, IPv4Source, OutPort),
		is(IPv4Protocol, number(protoUDP)), is(IPv4Destination, address(syncGroup)), is(DestinationPort, port(syncPort)), accept(),
	)
}

func isLinkLocal(f Field) Match { return masked(f, address("ffc0::"), address("fe80::")) }

// vrrp lets a network's routers find each other past our bridge. Directors that speak it themselves hear none of it.
func vrrp(f family) Rule {
	from := Statement(in(f.set(kindRouters), InPort, f.src))
	if f.suffix == "6" {
		from = isLinkLocal(f.src)
	}
	return f.rule(is(f.proto, number(protoVRRP)), in(setLinks, InPort), from, is(f.dst, address(vrrpGroup[f.suffix])), notIn(setVRRP, OutPort), accept())
}

// bfdLinkLocal lets BFD follow OSPFv3, whose sessions run between link-local addresses.
func bfdLinkLocal() []Rule {
	f := ipv6
	session := []Statement{isLinkLocal(f.src), isLinkLocal(f.dst), is(f.proto, number(protoUDP)), is(DestinationPort, port(3784))}
	return []Rule{
		f.rule(append([]Statement{in(setBFD, InPort), in(setLinks, OutPort)}, append(session, accept())...)...),
		f.rule(append([]Statement{in(setBFD, OutPort), in(setLinks, InPort)}, append(session, accept())...)...),
	}
}

// localChains part the blade's own stack from its guests' networks.
func localChains() []Chain {
	return []Chain{
		{Name: "input", Hook: Input, Priority: 0, Rules: []Rule{rule(in(setBridges, InBridge), deny(HostBound))}},
		{Name: "output", Hook: Output, Priority: 0, Rules: []Rule{rule(in(setBridges, OutBridge), deny(HostBound))}},
	}
}
