package filter_test

import (
	"slices"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// TestAttacksAreDropped lets every guest of every blade of nantes and of drawn fleets, and the VLANs, try every class of attack: neither the
// rules nor Judge let one to any port, and each is dropped for the reason that its table names.
func TestAttacksAreDropped(t *testing.T) {
	classes := map[string]bool{}
	for _, b := range nantes(t) {
		attackAll(t, b, classes)
	}
	for seed := range uint64(20) {
		blades, err := filtertest.Blades(seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blades {
			attackAll(t, b, classes)
		}
	}
	if len(classes) < 137 {
		t.Errorf("%d classes of attack, want 137 at least", len(classes))
	}
}

func attackAll(t *testing.T, b policy.Blade, classes map[string]bool) {
	t.Helper()
	m := newMachine(filter.Compile(b).Tables[0])
	attacks := filtertest.LinkAttacks(b)
	for _, g := range b.Guests {
		attacks = append(attacks, filtertest.Attacks(b, g.Name)...)
	}
	for _, a := range attacks {
		classes[a.Class] = true
		if a.Reason == "" {
			continue
		}
		var rules, judge []filter.Reason
		for _, segment := range b.Segments {
			if !slices.Contains(filtertest.Ports(b, segment), a.Packet.In) {
				continue
			}
			for _, out := range filtertest.Ports(b, segment) {
				if out != a.Packet.In {
					p := a.Packet
					p.Out = out
					rules = append(rules, verdictOfRules(m, a, out, segment.Bridge))
					if a.Raw == nil {
						judge = append(judge, filter.Judge(b, p).Reason)
					}
				}
			}
		}
		if slices.Contains(rules, "") || !slices.Contains(rules, a.Reason) {
			t.Errorf("%s, %s: the rules say %q, want %s", b.Name, a.Class, rules, a.Reason)
		}
		if a.Raw == nil && (slices.Contains(judge, "") || !slices.Contains(judge, a.Reason)) {
			t.Errorf("%s, %s: Judge says %q, want %s", b.Name, a.Class, judge, a.Reason)
		}
	}
}

// verdictOfRules is the reason for which the rules drop an attack on its way to a port; empty if it passes.
func verdictOfRules(m *machine, a filtertest.Attack, out, bridge string) filter.Reason {
	f := parse(a.Frame(1), a.Packet.In, "", bridge)
	if !m.hook(filter.Prerouting, f) {
		return filter.Reason(f.reason)
	}
	f.out, f.state = out, stateBits[a.Packet.State]
	if !m.hook(filter.Forward, f) {
		return filter.Reason(f.reason)
	}
	return ""
}
