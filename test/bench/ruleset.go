package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// usable returns the ruleset as far as this kernel can load it, and a note of what that leaves out: kernels without
// nft_meta_bridge and nf_conntrack_bridge know neither a bridge's name nor a bridged connection's state. Neither stands on the way of
// a VIP's packets before they are accepted.
func usable(ctx context.Context, k *nft.Kernel, rules filter.Ruleset) (filter.Ruleset, string, error) {
	err := replace(ctx, k, rules)
	if err == nil {
		return rules, "", nil
	}
	less, left := reduced(rules)
	if again := replace(ctx, k, less); again != nil {
		return filter.Ruleset{}, "", again
	}
	return less, fmt.Sprintf("without %d rules of connection state, and bridges not told apart (%s)", left, err), nil
}

// replace loads a ruleset in one transaction, whatever stood there.
func replace(ctx context.Context, k *nft.Kernel, rules filter.Ruleset) error {
	steps, err := nft.Plan(rules, nft.State{})
	if err != nil {
		return err
	}
	return k.Apply(ctx, steps)
}

// reduced leaves out the bridge table's rules that ask for a connection's state, and the condition that a packet be on one of our
// bridges: in a namespace of a benchmark there are no others. It counts the rules it left out.
func reduced(rules filter.Ruleset) (filter.Ruleset, int) {
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
