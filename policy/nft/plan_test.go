package nft

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
)

func fleet(t testing.TB) *policy.Fleet {
	t.Helper()
	files, err := policy.ReadDir(filepath.Join("..", "testdata", "fleets", "nantes"))
	if err != nil {
		t.Fatal(err)
	}
	f, diagnostics := policy.Load(files)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	return f
}

func derived(t testing.TB, name policy.BladeName) policy.Blade {
	t.Helper()
	b, err := policy.Derive(fleet(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// memory is a kernel that holds what it is given: a transaction is done whole, or, when it is told to fail, not at all.
type memory struct {
	state State
	fail  bool
}

func (m *memory) apply(t testing.TB, steps []Step) bool {
	t.Helper()
	if m.fail {
		m.fail = false
		return false
	}
	for _, s := range steps {
		name := tableName{s.table.Family, s.table.Name}
		if s.replace {
			static, err := wantedStatic(s.table)
			if err != nil {
				t.Fatal(err)
			}
			held := tableState{static: static, elements: map[string]map[filter.Element]bool{}, counts: s.keep}
			for _, set := range s.table.Sets {
				held.elements[set.Name] = map[filter.Element]bool{}
				for _, e := range set.Elements {
					held.elements[set.Name][e] = true
				}
			}
			m.state.tables[name] = held
			continue
		}
		held := m.state.tables[name].elements[s.set.Name]
		for _, e := range s.remove {
			if !held[e] {
				t.Fatalf("%s: deletes what is not there", s.Object)
			}
			delete(held, e)
		}
		for _, e := range s.add {
			if held[e] {
				t.Fatalf("%s: adds what is there", s.Object)
			}
			held[e] = true
		}
	}
	return true
}

func mustPlan(t testing.TB, want filter.Ruleset, have State) []Step {
	t.Helper()
	steps, err := Plan(want, have)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func rendered(t testing.TB, steps []Step) string {
	t.Helper()
	var out bytes.Buffer
	var plain []plan.Step
	for _, s := range steps {
		plain = append(plain, s.Step)
	}
	if err := plan.Render(&out, plain); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// variants are rulesets that differ in elements, in the static part, and in everything.
func variants(t testing.TB) map[string]filter.Ruleset {
	t.Helper()
	more := derived(t, "lame-l1")
	more.Services[1].VIPs = append(more.Services[1].VIPs, netip.MustParseAddr("203.0.113.98"))
	fewer := derived(t, "lame-l1")
	fewer.Guests = fewer.Guests[:1]
	rule := derived(t, "lame-l1")
	rule.Rules = rule.Rules[1:]
	return map[string]filter.Ruleset{
		"as it is": filter.Compile(derived(t, "lame-l1")), "a VIP more": filter.Compile(more), "guests fewer": filter.Compile(fewer),
		"a rule fewer": filter.Compile(rule), "another blade": filter.Compile(derived(t, "lame-c2")),
	}
}

func TestPlanOfWhatIsHeldIsEmpty(t *testing.T) {
	for name, want := range variants(t) {
		m := &memory{state: State{tables: map[tableName]tableState{}}}
		m.apply(t, mustPlan(t, want, m.state))
		if steps := mustPlan(t, want, m.state); len(steps) > 0 {
			t.Errorf("%s: still planned:\n%s", name, rendered(t, steps))
		}
	}
}

// TestPrepareAfterAnother holds that what was prepared before only spares work.
func TestPrepareAfterAnother(t *testing.T) {
	all := variants(t)
	for from, first := range all {
		for to, then := range all {
			earlier, err := Prepare(first, Wanted{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := Prepare(then, earlier)
			if err != nil {
				t.Fatal(err)
			}
			want, err := Prepare(then, Wanted{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.static, got.static, cmp.AllowUnexported(part{})); diff != "" {
				t.Errorf("%s after %s (-alone +after):\n%s", to, from, diff)
			}
		}
	}
}

// TestEveryChangeConverges goes from every variant to every other, with the first transaction refused.
func TestEveryChangeConverges(t *testing.T) {
	all := variants(t)
	for from, first := range all {
		for to, then := range all {
			m := &memory{state: State{tables: map[tableName]tableState{}}}
			m.apply(t, mustPlan(t, first, m.state))
			m.fail = true
			steps := mustPlan(t, then, m.state)
			if m.apply(t, steps) {
				t.Fatal("the fault did not happen")
			}
			if diff := cmp.Diff(rendered(t, steps), rendered(t, mustPlan(t, then, m.state))); diff != "" {
				t.Errorf("%s to %s: a refused transaction changed the plan:\n%s", from, to, diff)
			}
			m.apply(t, mustPlan(t, then, m.state))
			if rest := mustPlan(t, then, m.state); len(rest) > 0 {
				t.Errorf("%s to %s: still planned:\n%s", from, to, rendered(t, rest))
			}
		}
	}
}

func TestPlanIsDeterministic(t *testing.T) {
	all := variants(t)
	m := &memory{state: State{tables: map[tableName]tableState{}}}
	m.apply(t, mustPlan(t, all["as it is"], m.state))
	first := rendered(t, mustPlan(t, all["guests fewer"], m.state))
	for range 20 {
		if again := rendered(t, mustPlan(t, all["guests fewer"], m.state)); again != first {
			t.Fatalf("two plans of the same change differ:\n%s\n%s", first, again)
		}
	}
}

func TestPlanSaysWhatChanges(t *testing.T) {
	all := variants(t)
	m := &memory{state: State{tables: map[tableName]tableState{}}}
	m.apply(t, mustPlan(t, all["as it is"], m.state))
	for to, want := range map[string]string{
		"a VIP more":   "set vips4 of bridge bladenet  + 203.0.113.98",
		"a rule fewer": "~ filter   update  table bridge bladenet",
	} {
		if got := rendered(t, mustPlan(t, all[to], m.state)); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in:\n%s", to, want, got)
		}
	}
}

// TestDifferenceNamesTheObject damages each part of a table's static form.
func TestDifferenceNamesTheObject(t *testing.T) {
	want, err := wantedStatic(filter.Compile(derived(t, "lame-l1")).Tables[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		gone := slices.Delete(slices.Clone(want), i, i+1)
		if difference(want, gone) == "" || difference(gone, want) == "" {
			t.Errorf("without %s nothing differs", want[i].object)
		}
		changed := slices.Clone(want)
		changed[i].body += "x"
		if got := difference(want, changed); got != want[i].object+" differs" {
			t.Errorf("%s changed: %q", want[i].object, got)
		}
	}
}

func TestForeignTablesAreRefused(t *testing.T) {
	_, err := Plan(filter.Ruleset{Tables: []filter.Table{{Family: filter.Bridge, Name: "stranger"}}}, State{})
	if err == nil {
		t.Error("a table that is not ours is planned")
	}
}
