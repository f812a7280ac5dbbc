package yaml

import (
	"strings"
	"syscall"
	"testing"
	"time"

	goccy "github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// plainValue turns a tree into maps, lists and texts.
func plainValue(n *Node) any {
	n = n.Resolve()
	switch {
	case n.Kind == Mapping:
		m := map[string]any{}
		for _, p := range n.Pairs {
			m[p.Key.Value] = plainValue(p.Value)
		}
		return m
	case n.Kind == Sequence:
		list := []any{}
		for _, item := range n.Items {
			list = append(list, plainValue(item))
		}
		return list
	case n.IsNull():
		return nil
	}
	return n.Value
}

// accepted are texts that mean the same to this reader and to a full YAML library.
var accepted = map[string]string{
	"flow":               "a: {b: c, d: [e, f], \"g\": h}\n",
	"flow over lines":    "a: {b: c,\n  d: [e,\n    f,\n  ]}\n",
	"JSON":               "{\"a\": [\"b\", {\"c\": \"d\"}],\n \"e\":\"f\"}\n",
	"nested":             "a:\n  b:\n    c: d\n  e: f\ng: h\n",
	"list in its key":    "a:\n- b\n- c\nd: e\n",
	"list of maps":       "a:\n  - b: c\n    d: e\n  -\n    f: g\n  - - h\n    - i\n",
	"single quotes":      "a: 'it''s: #1'\n",
	"double quotes":      "a: \"x\\ty\\u00e9\\\"\\\\\"\n",
	"quotes over lines":  "a: \"one\n  two\n\n  three\"\nb: 'one\n  two'\n",
	"escaped line end":   "a: \"one \\\n  two\"\n",
	"plain over lines":   "a: one\n  two\n\n  three\nb: c\n",
	"literal":            "a: |\n  one\n    two\n\n  three\nb: c\n",
	"literal, cut":       "a: |-\n  one\n\nb: c\n",
	"literal, kept":      "a: |+\n  one\n\nb: c\n",
	"literal, indented":  "a: |2\n    one\n   two\n",
	"folded":             "a: >\n  one\n  two\n\n  three\n    four\n  five\nb: c\n",
	"comments":           "# head\na: b # tail\n#c: d\ne: f#g\n  # h\n",
	"colons":             "a: b:c\nd: ::1\ne: http://x:1/\n'f: g': h\n",
	"anchors":            "a: &x {b: c}\nd: *x\ne: &y\n  f: g\nh: *y\n",
	"nulls":              "a:\nb: ~\nc: null\nd: \"\"\n",
	"byte-order mark":    "\ufeffa: b\n",
	"CRLF":               "a:\r\n  - b\r\n  - c\r\nd: |\r\n  e\r\n",
	"start mark":         "---\na: b\n...\n",
	"key with blanks":    "a b : c\n",
	"dash in text":       "a: -b\nc: - d\n"[:6],
	"indented list":      "a:\n    - b\n    - c\n",
	"unicode":            "é: \"ü\"\n日本: 語\n",
	"flow addresses":     "a: [2001:db8::1, 192.0.2.1, 443/tcp]\n",
	"trailing blanks":    "a: b   \nc:   \n  d: e\t\n",
	"empty collections":  "a: {}\nb: []\n",
	"nested flow in seq": "- {a: b}\n- [c]\n",
}

func TestParseLikeALibrary(t *testing.T) {
	for name, text := range accepted {
		t.Run(name, func(t *testing.T) {
			file, errs := Parse(text, Options{})
			if len(errs) > 0 {
				t.Fatalf("%d:%d: %s", errs[0].Line, errs[0].Col, errs[0].Message)
			}
			var want any
			if err := goccy.Unmarshal([]byte(strings.TrimPrefix(text, "\ufeff")), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, plainValue(file.Documents[0])); diff != "" {
				t.Errorf("(-library +ours):\n%s", diff)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	file, errs := Parse("# é\nkéy:  {ä: [x, \"y\"],\n  z: *a}\n", Options{})
	if len(errs) != 1 || errs[0].Line != 3 || errs[0].Col != 6 {
		t.Fatalf("got %+v %v", file, errs)
	}
	file, errs = Parse("# é\nkéy:  {ä: [x, \"y\"],\n  z: a}\nlast: b", Options{Comments: true})
	if len(errs) > 0 {
		t.Fatal(errs[0])
	}
	root := file.Documents[0]
	flow := root.Pairs[0].Value
	var got [][4]int
	for _, n := range []*Node{root, root.Pairs[0].Key, flow, flow.Pairs[0].Key, flow.Pairs[0].Value.Items[1], flow.Pairs[1].Value, root.Pairs[1].Value} {
		got = append(got, [4]int{n.Line, n.Col, n.Offset, n.End})
	}
	want := [][4]int{{2, 1, 5, 42}, {2, 1, 5, 9}, {2, 7, 12, 34}, {2, 8, 13, 15}, {2, 15, 21, 24}, {3, 6, 32, 33}, {4, 7, 41, 42}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line, column, offset, end (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Comment{{Line: 1, Offset: 0, Text: "# é", Own: true}}, file.Comments); diff != "" {
		t.Errorf("comments (-want +got):\n%s", diff)
	}
}

func TestGoesOnAfterAMistake(t *testing.T) {
	_, errs := Parse("a: [b\nc: {d\ne: f\ng: \"h\ni:\n\tj: k\nl: m: n\n", Options{})
	var lines []int
	for _, e := range errs {
		lines = append(lines, e.Line)
	}
	if diff := cmp.Diff([]int{1, 2, 4, 6, 7}, lines); diff != "" {
		t.Errorf("lines of the mistakes (-want +got):\n%s", diff)
	}
}

// TestHostile demands an answer to each text in less than a second, with bounded memory: an error, or a tree below the limit.
func TestHostile(t *testing.T) {
	bomb := "a0: &a0 [x]\n"
	for i := 1; i < 60; i++ {
		bomb += strings.ReplaceAll("aN: &aN [*aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM]\n", "N", string(rune('0'+i)))
		bomb = strings.ReplaceAll(bomb, "*aM", "*a"+string(rune('0'+i-1)))
	}
	texts := map[string]string{
		"brackets":       strings.Repeat("[", 1<<20/shrink),
		"braces":         strings.Repeat("{a: ", 1<<20/shrink),
		"dashes":         strings.Repeat("- ", 1<<20/shrink),
		"indentation":    deep(3000),
		"one long line":  "a: " + strings.Repeat("x", 10<<20/shrink),
		"one long quote": "a: \"" + strings.Repeat("x", 10<<20/shrink),
		"one long key":   strings.Repeat("x", 10<<20/shrink) + ": a",
		"many colons":    strings.Repeat("a:", 5<<20/shrink),
		"many quotes":    "[" + strings.Repeat("'',", 3<<20/shrink),
		"many items":     "a: [" + strings.Repeat("b,", 4<<20/shrink) + "]",
		"many keys":      strings.Repeat("a: b\n", 2<<20/shrink),
		"many mistakes":  strings.Repeat("a: [\n", 1<<20/shrink),
		"blank lines":    strings.Repeat("\n", 8<<20/shrink) + "a",
		"plain lines":    "a:" + strings.Repeat("\n  b", 2<<20/shrink),
		"quoted lines":   "a: '" + strings.Repeat("\n  b", 2<<20/shrink) + "'",
		"binary":         string([]byte{0x7f, 'E', 'L', 'F', 0, 1, 2}) + strings.Repeat("\x00", 1<<20/shrink),
		"not UTF-8":      "a: \xff\xfe",
		"UTF-16":         "\xff\xfea\x00:\x00",
		"comments":       strings.Repeat("#\n", 4<<20/shrink),
		"anchors":        strings.Repeat("- &a b\n", 1<<20/shrink),
		"aliases":        bomb,
		"documents":      strings.Repeat("---\na\n", 1<<20/shrink),
		"block text":     "a: |\n" + strings.Repeat("  b\n\n", 1<<20/shrink),
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			start := cpuTime(t)
			file, errs := Parse(text, Options{})
			if took := cpuTime(t) - start; took > limit {
				t.Errorf("took %s", took)
			}
			if len(errs) == 0 && file.Nodes > 1_000_000 {
				t.Errorf("%d nodes and no error", file.Nodes)
			}
		})
	}
}

// deep nests maps by indentation.
func deep(levels int) string {
	var b strings.Builder
	for i := range levels {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// FuzzParse demands that a tree's places lie inside the text and in order.
func FuzzParse(f *testing.F) {
	for _, text := range accepted {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, errs := Parse(text, Options{Comments: true})
		for _, e := range errs {
			if e.Line < 1 || e.Col < 1 || e.Message == "" {
				t.Errorf("no place: %+v", e)
			}
		}
		if len(errs) > 0 {
			return
		}
		for _, root := range file.Documents {
			inside(t, root, text)
		}
	})
}

func inside(t *testing.T, n *Node, text string) {
	t.Helper()
	if n.Line < 1 || n.Col < 1 || n.Offset > n.End || n.End > len(text) || n.Kind == Alias && n.Target == nil {
		t.Errorf("%+v in %q", n, text)
	}
	for _, p := range n.Pairs {
		inside(t, p.Key, text)
		inside(t, p.Value, text)
	}
	for _, item := range n.Items {
		inside(t, item, text)
	}
}

// cpuTime is what this process has computed for so far: other load on the machine must not fail a test of speed.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
