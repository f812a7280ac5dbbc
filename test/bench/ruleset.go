package main

import (
	"context"
	"fmt"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
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
	less, left := filtertest.Reduced(rules)
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
