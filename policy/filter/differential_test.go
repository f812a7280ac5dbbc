package filter_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

func nantes(t testing.TB) map[policy.BladeName]policy.Blade {
	t.Helper()
	files, err := policy.ReadDir(filepath.Join("..", "testdata", "fleets", "nantes"))
	if err != nil {
		t.Fatal(err)
	}
	f, diagnostics := policy.Load(files)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	out := map[policy.BladeName]policy.Blade{}
	for _, b := range f.Blades {
		if out[b.Name], err = policy.Derive(f, b.Name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// stateBits are nft's bits for what conntrack says.
var stateBits = map[filter.ConnTrack]uint32{filter.Invalid: 1, filter.Established: 2, filter.Related: 4, filter.New: 8}

// pass runs a packet through the rules and returns the reason for which it is dropped, if it is.
func pass(m *machine, p filter.Packet, bridge string) (bool, string) {
	f := parse(p.Frame(1), p.In, "", bridge)
	if !m.hook(filter.Prerouting, f) {
		return false, f.reason
	}
	f.out, f.state = p.Out, stateBits[p.State]
	if !m.hook(filter.Forward, f) {
		return false, f.reason
	}
	return true, ""
}

// TestJudgeAgreesWithRules draws packets for every blade of nantes and wants the same verdict for the same reason from the
// rules and from Judge.
func TestJudgeAgreesWithRules(t *testing.T) {
	each := 5000
	if testing.Short() {
		each = 500
	}
	seen := tally{}
	wrong := 0
	for name, b := range nantes(t) {
		m := newMachine(filter.Compile(b).Tables[0])
		source := filtertest.New(b, 7)
		for range each {
			p, segment := source.Next()
			for _, p.Out = range filtertest.Ports(b, segment) {
				if p.Out == p.In {
					continue
				}
				want := filter.Judge(b, p)
				got, reason := pass(m, p, segment.Bridge)
				seen[verdictName(want)]++
				if got != want.Accept || reason != string(want.Reason) {
					if wrong++; wrong < 10 {
						t.Errorf("%s: rules say %v %s, Judge says %v %s (%s):\n%s", name, got, reason, want.Accept, want.Reason, want.Rule, describe(p))
					}
				}
			}
		}
	}
	t.Logf("%d disagreements; %s", wrong, seen)
	for _, r := range filter.BridgeReasons() {
		if seen[string(r)] == 0 && r != filter.HostBound {
			t.Errorf("no packet was dropped for %s", r)
		}
	}
	if seen["accept"] < each {
		t.Errorf("only %d packets were accepted", seen["accept"])
	}
}

func verdictName(v filter.Verdict) string {
	if v.Accept {
		return "accept"
	}
	return string(v.Reason)
}

func describe(p filter.Packet) string {
	text, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
