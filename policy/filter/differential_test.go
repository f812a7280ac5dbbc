package filter_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// A long run: go test ./policy/filter -run Agrees -args -fleets 2000 -packets 1000.
var (
	fleets  = flag.Uint64("fleets", 60, "fleets to draw")
	packets = flag.Int("packets", 250, "packets to draw for each blade of a drawn fleet")
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

// differential compares rules and Judge on drawn packets, each against every port of its bridge. It counts what Judge says.
func differential(t *testing.T, name string, b policy.Blade, seed uint64, packets int, seen tally) {
	t.Helper()
	m := newMachine(filter.Compile(b).Tables[0])
	source := filtertest.New(b, seed)
	wrong := 0
	for range packets {
		p, segment := source.Next()
		for _, p.Out = range filtertest.Ports(b, segment) {
			if p.Out == p.In {
				continue
			}
			want := filter.Judge(b, p)
			got, reason := pass(m, p, segment.Bridge)
			seen[verdictName(want)]++
			if got != want.Accept || reason != string(want.Reason) {
				if wrong++; wrong < 4 {
					t.Errorf("%s: rules say %v %s, Judge says %v %s (%s):\n%s", name, got, reason, want.Accept, want.Reason, want.Rule, describe(p))
				}
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d disagreements", name, wrong)
	}
}

// TestJudgeAgreesWithRules draws packets for every blade of nantes and wants the same verdict for the same reason from the
// rules and from Judge, and every reason to be met but those of limits, which only time and conntrack know.
func TestJudgeAgreesWithRules(t *testing.T) {
	seen := tally{}
	for name, b := range nantes(t) {
		differential(t, string(name), b, 7, 5000, seen)
	}
	t.Log(seen)
	for _, r := range filter.BridgeReasons() {
		if limit := r == filter.Storm || r == filter.ConnLimit; seen[string(r)] == 0 && r != filter.HostBound && !limit {
			t.Errorf("no packet was dropped for %s", r)
		}
	}
	if seen["accept"] < 5000 {
		t.Errorf("only %d packets were accepted", seen["accept"])
	}
}

// TestJudgeAgreesOnDrawnFleets does the same for fleets that nobody wrote, and looks for accepts above guards in their rules.
func TestJudgeAgreesOnDrawnFleets(t *testing.T) {
	seen := tally{}
	for seed := range *fleets {
		blades, err := filtertest.Blades(seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blades {
			name := fmt.Sprintf("fleet %d, %s", seed, b.Name)
			if bad := filter.AcceptsAboveGuards(filter.Compile(b).Tables[0]); len(bad) > 0 {
				t.Errorf("%s: accepts above guards:\n%s", name, strings.Join(bad, "\n"))
			}
			differential(t, name, b, seed, *packets, seen)
		}
	}
	t.Log(seen)
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
