package filter

import (
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Sets of the host table.
const (
	hostGuestSide  = "guest-side" // bridges, VLAN links and the trunk
	hostManagement = "management" // the blade's own NIC
)

// hostTable shields the blade's own stack. Interfaces that the policy does not name are left alone, and without a hosts rule the
// management NIC is as well: an operator is never locked out by silence.
func hostTable(b policy.Blade) Table {
	c := &compiler{b: b, sets: map[string]*Set{
		hostGuestSide:  {Name: hostGuestSide, Key: []Field{InPort}},
		hostManagement: {Name: hostManagement, Key: []Field{InPort}},
	}}
	names := []string{b.Trunk}
	for _, s := range b.Segments {
		names = append(names, s.Link, s.Bridge)
	}
	for _, n := range names {
		if n != "" {
			c.add(hostGuestSide, ifname(n))
		}
	}
	input := []Rule{rule(in(hostGuestSide, InPort), deny(HostFromGuest))}
	var chains []Chain
	if b.Management != "" && len(b.Hosts) > 0 {
		c.add(hostManagement, ifname(b.Management))
		chains = append(chains, Chain{Name: "management", Rules: c.managementRules()})
		input = append(input, rule(in(hostManagement, InPort), follow("management")))
	}
	chains = slices.Concat(denyChains(hostReasons()), chains, []Chain{
		{Name: "input", Hook: Input, Priority: 0, Rules: input},
		{Name: "forward", Hook: Forward, Priority: 0, Rules: []Rule{
			rule(in(hostGuestSide, InPort), deny(HostFromGuest)),
			rule(in(hostGuestSide, OutPort), deny(HostFromGuest)),
		}},
	})
	sets := append(c.finishSets(), hitSets(hostReasons())...)
	slices.SortFunc(sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	return Table{Family: Inet, Name: HostTable, Counters: counters(hostReasons()), Sets: sets, Chains: chains}
}

// managementRules let in what hosts rules allow, and what the NIC needs to have an address and neighbours at all.
func (c *compiler) managementRules() []Rule {
	rules := []Rule{
		rule(anyState(stateEstablished|stateRelated), accept()),
		rule(is(Protocol, number(protoUDP)), is(SourcePort, port(67)), is(DestinationPort, port(68)), accept()),
		rule(is(Protocol, number(protoUDP)), is(SourcePort, port(547)), is(DestinationPort, port(546)), accept()),
	}
	for _, t := range []byte{ndRouter, ndSolicit, ndAdvertise} {
		rules = append(rules, rule(is(Protocol, number(protoICMPv6)), is(ICMPType, number(t)), accept()))
	}
	rules = append(rules, rule(anyState(stateInvalid), deny(BadState)))
	hosts := slices.Clone(c.b.Hosts)
	slices.SortFunc(hosts, func(a, b policy.Rule) int { return strings.Compare(a.Name, b.Name) })
	for _, r := range hosts {
		for _, f := range hostFamilies() {
			rules = append(rules, c.hostRule(r, f)...)
		}
	}
	return append(rules, rule(deny(HostPolicy)))
}

// hostFamilies read packets of the inet family: there is no Ethernet header, and conntrack has put fragments together.
func hostFamilies() []family {
	v4, v6 := ipv4, ipv6
	v4.host, v6.host = true, true
	v4.proto, v6.proto = Protocol, Protocol
	return []family{v4, v6}
}

func (c *compiler) hostRule(r policy.Rule, f family) []Rule {
	base := "rule-" + identifier(r.Name) + "-"
	from := f.set(base + "from")
	source := []Statement{in(from, Protocol, f.src)}
	if r.FromAny {
		source = nil
	} else {
		c.addRuleSet(from, []Field{Protocol, f.src}, c.peers(r.From, r.Allow, f))
	}
	var rules []Rule
	for _, a := range r.Allow {
		if a.Protocol == policy.ICMP {
			echo := []Statement{is(Protocol, number(f.icmp)), is(ICMPType, number(f.echo))}
			rules = append(rules, f.accepting(r.Name, append(echo, source...)))
			break
		}
	}
	to := f.set(base + "to")
	here := r
	here.ToAny = true
	c.addTargets(to, here, f)
	return append(rules, f.accepting(r.Name, append(source, in(to, Protocol, DestinationPort))))
}
