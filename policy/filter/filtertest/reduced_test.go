package filtertest

import (
	"slices"
	"testing"

	"github.com/bladenet/bladenet/policy/filter"
	sized "github.com/bladenet/bladenet/test/bench/fleet"
)

// TestReduced holds that only what a kernel without the modules cannot load is left out, and the argument is left alone.
func TestReduced(t *testing.T) {
	b, err := sized.Derive(sized.Size{Services: 8, Guests: 4})
	if err != nil {
		t.Fatal(err)
	}
	whole := filter.Compile(b)
	before := whole.Text()
	less, left := Reduced(whole)
	if whole.Text() != before {
		t.Error("the whole ruleset was changed")
	}
	rules := func(r filter.Ruleset) (n int) {
		for _, c := range r.Tables[0].Chains {
			n += len(c.Rules)
			for _, x := range c.Rules {
				if slices.ContainsFunc(x.Statements, func(s filter.Statement) bool { return readsState(s) || readsBridge(s) }) {
					n += 1000
				}
			}
		}
		return n
	}
	if got, want := rules(less), rules(whole)%1000-left; got != want || left == 0 {
		t.Errorf("%d rules, %d left out, want %d", got, left, want)
	}
}
