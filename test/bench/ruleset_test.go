package main

import (
	"slices"
	"testing"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/test/bench/fleet"
)

func TestWithTracking(t *testing.T) {
	b, err := fleet.Derive(fleet.Size{Services: 8, Guests: 4})
	if err != nil {
		t.Fatal(err)
	}
	count := func(r filter.Ruleset) (rules, untracked int) {
		for _, table := range r.Tables {
			for _, c := range table.Chains {
				for _, x := range c.Rules {
					rules++
					if slices.ContainsFunc(x.Statements, isNotrack) {
						untracked++
					}
				}
			}
		}
		return rules, untracked
	}
	rules, untracked := count(filter.Compile(b))
	with, none := count(withTracking(filter.Compile(b)))
	if with != rules || untracked == 0 || none != 0 {
		t.Errorf("%d rules of which %d do not track became %d and %d", rules, untracked, with, none)
	}
}
