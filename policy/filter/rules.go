package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// ruleChains hold the policy's rules: one rule a family and name, its addresses in sets. A new rule is a new chain; a new
// address, a new guest or a new port in it is an element.
func (c *compiler) ruleChains() []Chain {
	forth, back := Chain{Name: RulesChain}, Chain{Name: RulesBackChain}
	rules := slices.Clone(c.b.Rules)
	slices.SortFunc(rules, func(a, b policy.Rule) int { return strings.Compare(a.Name, b.Name) })
	for _, r := range rules {
		for _, f := range families() {
			ours, theirs := c.compileRule(r, f)
			forth.Rules = append(forth.Rules, ours...)
			back.Rules = append(back.Rules, theirs...)
		}
	}
	return []Chain{forth, back}
}

// compileRule writes one rule for one family: the way of new connections, and the way back of a VIP's stateless answers.
func (c *compiler) compileRule(r policy.Rule, f family) (forth, back []Rule) {
	base := "rule-" + identifier(r.Name) + "-"
	from, to := f.set(base+"from"), f.set(base+"to")
	pings := slices.ContainsFunc(r.Allow, func(p policy.PortRange) bool { return p.Protocol == policy.ICMP })
	carries := slices.ContainsFunc(r.Allow, func(p policy.PortRange) bool { return p.Protocol != policy.ICMP })

	var fromForth, fromBack []Statement
	if r.FromAny {
		fromForth, fromBack = []Statement{notIn(f.set(kindGuests), f.src)}, []Statement{notIn(f.set(kindGuests), f.dst)}
	} else {
		c.addRuleSet(from, []Field{f.proto, f.src}, c.peers(r.From, r.Allow, f))
		fromForth, fromBack = []Statement{in(from, f.proto, f.src)}, []Statement{in(from, f.proto, f.dst)}
	}
	toForth := []Statement{in(to, f.proto, f.dst, DestinationPort)}
	toBack := []Statement{in(to, f.proto, f.src, SourcePort)}
	if r.ToAny {
		toForth = append([]Statement{notIn(f.set(kindGuests), f.dst)}, in(to, f.proto, DestinationPort))
		toBack = append([]Statement{notIn(f.set(kindGuests), f.src)}, in(to, f.proto, SourcePort))
	}
	if carries {
		c.addTargets(to, r, f)
		forth = append(forth, f.accepting(r.Name, append(fromForth, toForth...)))
		back = append(back, f.accepting(r.Name, append(fromBack, toBack...)))
	}
	if pings {
		forth = append(forth, f.accepting(r.Name, c.ping(r, f, base, fromForth)))
	}
	return forth, back
}

func (f family) accepting(name string, statements []Statement) Rule {
	end := follow(chainAdmit)
	if f.host {
		end = accept()
	}
	out := f.rule(append(statements, Count{}, end)...)
	out.Comment = name[:min(len(name), 120)]
	return out
}

func (c *compiler) ping(r policy.Rule, f family, base string, from []Statement) []Statement {
	echo := []Statement{is(f.proto, number(f.icmp)), is(ICMPType, number(f.echo))}
	if r.ToAny {
		return append(append(echo, from...), notIn(f.set(kindGuests), f.dst))
	}
	set := f.set(base + "ping")
	c.addRuleSet(set, []Field{f.proto, f.dst}, c.peers(r.To, []policy.PortRange{{Protocol: policy.ICMP}}, f))
	return append(append(echo, from...), in(set, f.proto, f.dst))
}

// peers is each protocol that a rule allows with each of its addresses.
func (c *compiler) peers(prefixes []netip.Prefix, allow []policy.PortRange, f family) [][]span {
	var out [][]span
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.ICMP} {
		if !slices.ContainsFunc(allow, func(r policy.PortRange) bool { return r.Protocol == p }) {
			continue
		}
		for _, a := range mergePrefixes(prefixes, f) {
			out = append(out, []span{exactly(number(protocolNumber(p, f))), a})
		}
	}
	return out
}

func (c *compiler) addTargets(set string, r policy.Rule, f family) {
	fields := []Field{f.proto, f.dst, DestinationPort}
	if r.ToAny {
		fields = []Field{f.proto, DestinationPort}
	}
	var elements [][]span
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP} {
		for _, ports := range mergePorts(r.Allow, p) {
			proto := exactly(number(protocolNumber(p, f)))
			if r.ToAny {
				elements = append(elements, []span{proto, ports})
				continue
			}
			for _, a := range mergePrefixes(r.To, f) {
				elements = append(elements, []span{proto, a, ports})
			}
		}
	}
	c.addRuleSet(set, fields, elements)
}

func (c *compiler) addRuleSet(name string, fields []Field, elements [][]span) {
	if c.sets[name] == nil {
		c.sets[name] = &Set{Name: name, Key: fields, Interval: true}
	}
	for _, e := range elements {
		c.addSpan(name, e...)
	}
}

// identifier writes a name with the letters that nft allows in one, different names differently.
func identifier(name string) string {
	var b strings.Builder
	for _, r := range []byte(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			b.WriteByte(r)
			continue
		}
		fmt.Fprintf(&b, "_%02x", r)
	}
	return b.String()
}
