package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormat(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"spaces", "zones:   [ a,b ]\nsites: [c]   \n\n\n\n# end   \n", "zones: [a, b]\nsites: [c]\n\n# end\n"},
		{"indentation", "blades:\n     b1:\n            site:  x\n            # why\n            zone: y   # here\n", "blades:\n  b1:\n    site: x\n    # why\n    zone: y  # here\n"},
		{"comments at their level", "hosts:\n    a: {}\n    # about a\nalerts:\n# about alerts\n- webhook: x\n  # inside\n- webhook: y\n# end\n", "hosts:\n  a: {}\n  # about a\nalerts:\n  # about alerts\n  - webhook: x\n    # inside\n  - webhook: y\n# end\n"},
		{"flow over lines", "a: {b: c, # one\n  d: [e,\n  f] # two\n  # three\n  }\ng: h\n", "a:\n  b: c  # one\n  d:\n    - e\n    - f  # two\n  # three\ng: h\n"},
		{"JSON", "{\"zones\": [\"a\"],\r\n\t\"sites\": {\"b\": 1}}\r\n", "zones: [\"a\"]\nsites: {b: 1}\n"},
		{"quotes", "a: 'it''s'\nb: \"\\u0041\"\n'c': d\n\"e f\": g\n", "a: \"it's\"\nb: \"A\"\nc: d\n\"e f\": g\n"},
		{"anchors", "a: &x\n  b: c\nd: *x\ne: &y [f]\n", "a: &x\n  b: c\nd: *x\ne: &y [f]\n"},
		{"block text", "why: |   # text\n      one\n        two\n\n      three\nb: >-\n  x\n  y\n", "why: |  # text\n  one\n    two\n\n  three\nb: >-\n  x\n  y\n"},
		{"folded plain", "why: one\n  two\nb: \"x\n  y\"\n", "why: one two\nb: \"x y\"\n"},
		{"documents", "# head\na: b\n---\n# second\nc: d\n", "# head\na: b\n---\n# second\nc: d\n"},
		{"lists of lists", "a:\n- - b\n  - c\n-\n  d: e\n  f: g\n- h: i\n  j:\n  - k\n", "a:\n  - - b\n    - c\n  -\n    d: e\n    f: g\n  - h: i\n    j:\n      - k\n"},
		{"empty values", "a:\nb: {}\nc: []\nd: {e, f: }\n", "a:\nb: {}\nc: []\nd: {e:, f:}\n"},
		{"mark", "\ufeffa: b", "a: b\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Format(File{Name: "a.yaml", Data: []byte(c.in)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got.Data)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again, err := Format(got)
			if err != nil || string(again.Data) != string(got.Data) {
				t.Errorf("formatted again: %v\n%s", err, again.Data)
			}
		})
	}
}

func TestFormatNantes(t *testing.T) {
	files := read(t, "testdata/fleets/nantes")
	f := nantes(t)
	for i := range files {
		got, err := Format(files[i])
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "formatted/"+files[i].Name, got.Data)
		files[i] = got
	}
	g, ds := Load(files)
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	for _, b := range f.Blades {
		if placeless(t, f, b.Name) != placeless(t, g, b.Name) {
			t.Errorf("blade %s differs after formatting", b.Name)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	if _, err := Format(File{Name: "a.yaml", Data: []byte("a: [b\n")}); err == nil || err.Error() != `format a.yaml:1:4: '[' is never closed` {
		t.Errorf("got %v", err)
	}
}

// FuzzFormat demands that formatting keeps what a text says, or refuses it, and that it settles.
func FuzzFormat(f *testing.F) {
	for _, file := range read(f, "testdata/fleets/nantes") {
		f.Add(file.Data)
	}
	for _, s := range []string{"a: {b: c,\n  d: e} # f\n", "# x\n- a\n-\n  # y\n  b: c\n", "a: |+\n  x\n\n# y\nb: c\n", "a: &b\n  - *b\n", "a: >2\n    x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := Format(File{Name: "a.yaml", Data: data})
		if err != nil {
			return
		}
		twice, err := Format(once)
		if err != nil {
			t.Fatalf("%v in the result\n%s\nof\n%s", err, once.Data, data)
		}
		if string(once.Data) != string(twice.Data) {
			t.Errorf("not settled:\n%q\n%q\nof\n%q", once.Data, twice.Data, data)
		}
	})
}
