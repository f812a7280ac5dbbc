package filtertest

import (
	"slices"

	"github.com/bladenet/bladenet/policy/filter"
)

// Reduced leaves out the bridge table's rules that ask for a connection's state, and the condition that a packet be on one of our
// bridges: in a namespace of a benchmark there are no others. It counts the rules it left out.
func Reduced(rules filter.Ruleset) (filter.Ruleset, int) {
	out, left := filter.Ruleset{Tables: slices.Clone(rules.Tables)}, 0
	for i, t := range out.Tables {
		if t.Family != filter.Bridge {
			continue
		}
		chains := slices.Clone(t.Chains)
		for j, c := range chains {
			var kept []filter.Rule
			for _, r := range c.Rules {
				if slices.ContainsFunc(r.Statements, readsState) {
					left++
					continue
				}
				r.Statements = slices.DeleteFunc(slices.Clone(r.Statements), readsBridge)
				kept = append(kept, r)
			}
			chains[j].Rules = kept
		}
		out.Tables[i].Chains = chains
	}
	return out, left
}

// readsState is about what conntrack knows of a packet.
func readsState(s filter.Statement) bool {
	switch s := s.(type) {
	case filter.Match:
		return s.Field == filter.ConnState
	case filter.Meter:
		return s.Connections > 0
	}
	return false
}

func readsBridge(s filter.Statement) bool {
	switch s := s.(type) {
	case filter.Match:
		return bridgeName(s.Field)
	case filter.Lookup:
		return slices.ContainsFunc(s.Fields, bridgeName)
	}
	return false
}

func bridgeName(f filter.Field) bool { return f == filter.InBridge || f == filter.OutBridge }
