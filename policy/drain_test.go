package policy

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSetDrainFromText drains and undrains entries in all the ways in which people write them.
func TestSetDrainFromText(t *testing.T) {
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const was = "  w1: {blade: b1,"
	if !strings.Contains(string(base), was) {
		t.Fatalf("no %q in the base policy", was)
	}
	cases := map[string]struct{ old, drained, again string }{
		"flow":           {was, "  w1: {drain: true, blade: b1,", was},
		"flow, on lines": {"  w1: {\n    blade: b1,", "  w1: {\n    drain: true, blade: b1,", "  w1: {\n    blade: b1,"},
		"said false":     {"  w1: {blade: b1, drain: false,", "  w1: {blade: b1, drain: true,", "  w1: {blade: b1,"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := strings.Replace(string(base), was, c.old, 1)
			files := []File{{Name: "base.yaml", Data: []byte(before)}}
			for _, step := range []struct {
				on   bool
				want string
			}{{true, c.drained}, {true, c.drained}, {false, c.again}, {false, c.again}} {
				f, ds := Load(files)
				if ds.HasErrors() {
					t.Fatal(ds)
				}
				changed, err := SetDrain(files, f, "w1", step.on)
				if err != nil {
					t.Fatal(err)
				}
				if len(changed) > 0 {
					files = changed
				}
				if diff := cmp.Diff(strings.Replace(string(base), was, step.want, 1), string(files[0].Data)); diff != "" {
					t.Errorf("drain %t (-want +got):\n%s", step.on, diff)
				}
			}
		})
	}
}

// TestSetDrainOfABlock edits an entry that is written over lines, with comments.
func TestSetDrainOfABlock(t *testing.T) {
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const block = "  d1:\n    # the first director\n    blade: b1 # here\n"
	text := strings.Replace(string(base), "  d1: {blade: b1, ", block+"    ", 1)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "    eth0:") && i > 0 && strings.Contains(lines[i-1], "here") {
			l = strings.TrimSuffix(l, "}")
			l = strings.ReplaceAll(strings.ReplaceAll(l, ", eth1:", "\n    eth1:"), ", announce:", "\n    announce:")
			lines[i] = l
		}
	}
	text = strings.Join(lines, "\n")
	files := []File{{Name: "base.yaml", Data: []byte(text)}}
	f, ds := Load(files)
	if ds.HasErrors() {
		t.Fatal(ds)
	}
	changed, err := SetDrain(files, f, "d1", true)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(text, "    blade: b1 # here\n", "    drain: true\n    blade: b1 # here\n", 1)
	if diff := cmp.Diff(want, string(changed[0].Data)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f, _ = Load(changed)
	if b := mustDerive(t, f, "b1"); !balancer(t, b).Announce.Drained {
		t.Error("the drained director announces")
	}
	back, err := SetDrain(changed, f, "d1", false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(back[0].Data)); diff != "" {
		t.Errorf("undrained (-want +got):\n%s", diff)
	}
}

// TestSetDrainRefuses: what cannot be edited without changing something else, and guests that are not there.
func TestSetDrainRefuses(t *testing.T) {
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := Load([]File{{Name: "base.yaml", Data: base}})
	if _, err := SetDrain([]File{{Name: "base.yaml", Data: base}}, f, "nobody", true); err == nil || !strings.Contains(err.Error(), "not in the policy") {
		t.Errorf("a guest that is not there: %v", err)
	}
	if _, err := SetDrain([]File{{Name: "other.yaml", Data: base}}, f, "w1", true); err == nil {
		t.Error("a file that is not there")
	}
}

// TestDrainedWeights: a drained real server keeps its weight, which sizes tables, and is marked on every director.
func TestDrainedWeights(t *testing.T) {
	f := changed(t, "  w1: {blade: b1,", "  w1: {drain: true, blade: b1,")
	for _, v := range balancer(t, mustDerive(t, f, "b1")).Services {
		for _, d := range v.Destinations {
			if d.Drained != (d.Guest == "w1") || d.Weight == 0 && d.Remote == 0 {
				t.Errorf("%s: %+v", v.Service, d)
			}
		}
	}
}

func TestLeftShort(t *testing.T) {
	f := nantes(t)
	for name, want := range map[GuestName][]string{
		"www-l1": nil, "cas-l1": nil, "dir-pub-l": nil, "nobody": nil,
	} {
		if diff := cmp.Diff(want, f.LeftShort(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	f, ds := Load(append(read(t, "testdata/fleets/nantes")[:2:2], drainedIn(t, "www-t1", "cas-t1", "dir-pub-l", "dir-pub-c")...))
	if ds.HasErrors() {
		t.Fatal(ds)
	}
	for name, want := range map[GuestName][]string{
		"www-l1": {"www needs 2 and would have 1"}, "cas-l1": {"cas needs 1 and would have 0"}, "mail-c1": nil,
		"dir-pub-t": {"zone public has no other director that announces its VIPs"}, "dir-prv-t": nil,
	} {
		if diff := cmp.Diff(want, f.LeftShort(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// drainedIn is the rest of the reference fleet with some guests drained.
func drainedIn(t *testing.T, names ...string) []File {
	t.Helper()
	files := read(t, "testdata/fleets/nantes")[2:]
	for _, name := range names {
		old := "  " + name + ": {"
		if !strings.Contains(string(files[0].Data), old) {
			t.Fatalf("no %q", old)
		}
		files[0].Data = []byte(strings.Replace(string(files[0].Data), old, old+"drain: true, ", 1))
	}
	return files
}
