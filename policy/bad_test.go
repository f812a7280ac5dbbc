package policy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// separator stands between a policy and its diagnostics in testdata/bad.
const separator = "---------- diagnostics\n"

// unpack splits a test policy into its files: "-- name --" starts one; without it the whole is fleet.yaml.
func unpack(text string) []File {
	var files []File
	for _, part := range strings.SplitAfter(text, "\n") {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(part, " --\n"), "-- "); ok && strings.HasSuffix(part, " --\n") {
			files = append(files, File{Name: name})
			continue
		}
		if files == nil {
			files = []File{{Name: "fleet.yaml"}}
		}
		last := &files[len(files)-1]
		last.Data = append(last.Data, part...)
	}
	return files
}

// TestBad loads each file of testdata/bad: a policy with one mistake, the separator, and what must be said of it.
func TestBad(t *testing.T) {
	cases, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 60 {
		t.Fatalf("only %d bad policies", len(cases))
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, want, _ := strings.Cut(string(data), separator)
			_, ds := Load(unpack(text))
			if *update {
				got := text + separator + ds.String()
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(want, ds.String()); diff != "" {
				t.Errorf("diagnostics (-want +got):\n%s", diff)
			}
			oneMistake(t, text, ds)
		})
	}
}

// oneMistake demands one error and a place for whatever is said.
func oneMistake(t *testing.T, text string, ds Diagnostics) {
	t.Helper()
	errors := 0
	for _, d := range ds {
		if d.Severity == SeverityError {
			errors++
		}
		wellPlaced(t, text, d.Pos, d.Line)
		for _, o := range d.Other {
			wellPlaced(t, text, o.Pos, o.Line)
		}
	}
	if errors != 1 {
		t.Errorf("%d errors for one mistake:\n%s", errors, ds)
	}
}

// wellPlaced demands a place inside the text, and the source line that stands there.
func wellPlaced(t *testing.T, text string, p Pos, line string) {
	t.Helper()
	if p.File == "" || p.Line < 1 || p.Col < 1 {
		t.Errorf("no place: %s", p)
	}
	if !strings.Contains(text, line) || p.Col > utf8.RuneCountInString(line)+1 {
		t.Errorf("%s: no such place, line %q", p, line)
	}
}

// TestBadBase makes sure that each bad policy is bad by its mistake alone.
func TestBadBase(t *testing.T) {
	data, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, ds := Load([]File{{Name: "base.yaml", Data: data}}); len(ds) > 0 {
		t.Errorf("the base of the bad policies:\n%s", ds)
	}
}

// TestRender shows every part of a rendered diagnostic at once.
func TestRender(t *testing.T) {
	ds := Diagnostics{{
		Severity: SeverityError, Pos: Pos{"a.yaml", 3, 7}, Message: "a clash", Hint: "choose one", Line: "  b1: é{}", Caret: 7,
		Other: []Related{{Pos: Pos{"b.yaml", 1, 1}, Message: "the other", Line: "b1: {}", Caret: 1}},
	}}
	var b bytes.Buffer
	if err := ds.Render(&b); err != nil {
		t.Fatal(err)
	}
	want := "a.yaml:3:7: error: a clash\n      b1: é{}\n          ^\n  hint: choose one\nb.yaml:1:1: the other\n    b1: {}\n    ^\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRenderLongLine shows the part of a long line that matters, and nothing that moves a terminal's cursor.
func TestRenderLongLine(t *testing.T) {
	text := `{"zones": [` + strings.Repeat(`"zone-of-some-length", `, 400) + `"x"], "sitez": ["a"], "sites": ["` + strings.Repeat("y", 5000) + "\x1b\"]}\n"
	_, ds := Load([]File{{Name: "a.json", Data: []byte(text)}})
	if len(ds) != 1 || !strings.Contains(ds[0].Message, "control character 0x1b") || strings.Contains(ds.String(), "\x1b") {
		t.Fatalf("%q", ds.String())
	}
	_, ds = Load([]File{{Name: "a.json", Data: []byte(strings.ReplaceAll(text, "\x1b", ""))}})
	i := strings.Index(ds.String(), `unknown key "sitez"`)
	if i < 0 {
		t.Fatal(ds)
	}
	lines := strings.Split(ds.String()[i:], "\n")
	if got := lines[1][len(lines[2])-1:]; !strings.HasPrefix(got, `"sitez"`) || len(lines[1]) > 200 {
		t.Errorf("the caret stands above %.20q of\n%s\n%s", got, lines[1], lines[2])
	}
}
