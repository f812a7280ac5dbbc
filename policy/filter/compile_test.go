package filter

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func nantes(t testing.TB) *policy.Fleet {
	t.Helper()
	files, err := policy.ReadDir(filepath.Join("..", "testdata", "fleets", "nantes"))
	if err != nil {
		t.Fatal(err)
	}
	f, diagnostics := policy.Load(files)
	for _, d := range diagnostics {
		t.Error(d)
	}
	if t.Failed() {
		t.FailNow()
	}
	return f
}

func blade(t testing.TB, f *policy.Fleet, name policy.BladeName) policy.Blade {
	t.Helper()
	b, err := policy.Derive(f, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTextIsGolden(t *testing.T) {
	f := nantes(t)
	for _, name := range []policy.BladeName{"lame-l1", "lame-l2", "lame-c1"} {
		got := Compile(blade(t, f, name)).Text()
		path := filepath.Join("testdata", string(name)+".nft")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestSetsUsedAreDeclared(t *testing.T) {
	f := nantes(t)
	for _, b := range f.Blades {
		for _, table := range Compile(blade(t, f, b.Name)).Tables {
			checkTable(t, table)
		}
	}
}

// checkTable holds that a table is closed: every set, counter and chain that a rule names exists, and chains stand after those
// that they go to.
func checkTable(t *testing.T, table Table) {
	t.Helper()
	known := map[string]bool{}
	for _, s := range table.Sets {
		if known["@"+s.Name] {
			t.Errorf("%s: set %s twice", table.Name, s.Name)
		}
		known["@"+s.Name] = true
	}
	for _, c := range table.Counters {
		known["#"+c] = true
	}
	need := func(chain, what string) {
		if !known[what] {
			t.Errorf("%s: chain %s names %s, which is not there yet", table.Name, chain, what)
		}
	}
	for _, c := range table.Chains {
		if known[c.Name] {
			t.Errorf("%s: chain %s twice", table.Name, c.Name)
		}
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				switch s := s.(type) {
				case Lookup:
					need(c.Name, "@"+s.Set)
				case Dispatch:
					need(c.Name, "@"+s.Map)
				case Hit:
					need(c.Name, "@"+s.Set)
				case Count:
					if s.Counter != "" {
						need(c.Name, "#"+s.Counter)
					}
				case Decide:
					if s.Chain != "" {
						need(c.Name, s.Chain)
					}
				}
			}
		}
		known[c.Name] = true
	}
	for _, s := range table.Sets {
		for _, e := range s.Elements {
			if e.Goto != "" {
				need(s.Name, e.Goto)
			}
		}
	}
}
