package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad demands of every input: no panic, a place for every finding, and a derivation of whatever is read.
func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range seeds {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), separator)
		f.Add([]byte(text))
	}
	for _, file := range read(f, "testdata/fleets/nantes") {
		f.Add(file.Data)
	}
	for _, s := range []string{
		"a: &a [*a]\n", "a: &a {<<: *a}\n", "- - - -\n", "a: |\n  x\n\n y", "a: >2-\n    x\n", "\"\\x41\": 'it''s'\n", "---\n...\n%YAML 1.2\n---\n",
		"a: \"x\\\n  y\"\n", "a: 'b\n\n  c'\n", "{a: [1, {b: c}], \"d\":1}\n", "\ufeffzones: [a]\r\n", "zones: &z [a]\nsites: *z\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fleet, ds := Load(unpack(string(data)))
		for _, d := range ds {
			if d.Pos.Line < 1 || d.Pos.Col < 1 || d.Message == "" {
				t.Errorf("a finding without a place: %+v", d)
			}
		}
		if fleet == nil || tooMuch(fleet) {
			return
		}
		for _, b := range fleet.Blades {
			if _, err := Derive(fleet, b.Name); err != nil {
				t.Errorf("derive %s: %v", b.Name, err)
			}
		}
	})
}

// tooMuch reports a policy that Check refuses for what it would expand to.
func tooMuch(f *Fleet) bool {
	count := 0
	for _, s := range f.Services {
		for _, p := range s.Ports {
			count += int(p.Last) - int(p.First) + 1
		}
	}
	return count > mostPorts
}
