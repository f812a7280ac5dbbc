package revision

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

func revisionOf(text string) Revision {
	return Revision{Time: time.Unix(1, 0).UTC(), Note: "test", Files: []policy.File{{Name: "a.yaml", Data: []byte(text)}}}
}

func TestSaveThenLatest(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Latest(); ok || err != nil {
		t.Fatalf("Latest of an empty store = %v, %v; want none and no error", ok, err)
	}
	for _, text := range []string{"one", "two"} {
		if _, err := s.Save(revisionOf(text)); err != nil {
			t.Fatal(err)
		}
	}
	want := revisionOf("two")
	want.Number = 2
	got, ok, err := s.Latest()
	if err != nil || !ok {
		t.Fatalf("Latest = %v, %v", ok, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Latest (-want +got):\n%s", diff)
	}
}

func TestLatestPassesOverDamage(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(revisionOf("good")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"2.json": "{", "3.json": `{"number": 7}`, "x.json": "not a number", "4.tmp": "not ours"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := s.Latest()
	if !ok || got.Number != 1 {
		t.Errorf("Latest = %d, %v; want revision 1", got.Number, ok)
	}
	if err == nil {
		t.Error("Latest says nothing of the damaged files")
	}
}

func TestTrimKeepsABoundedNumber(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range Keep + 3 {
		if _, err := s.Save(revisionOf("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	numbers, err := s.Numbers()
	if err != nil {
		t.Fatal(err)
	}
	if len(numbers) != Keep || numbers[0] != 4 || !slices.IsSorted(numbers) {
		t.Errorf("Numbers = %v; want %d from 4 on", numbers, Keep)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"a long first text", "short"} {
		if err := WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("ReadFile = %q, %v; want %q", got, err, text)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, want 1 (%v)", len(entries), err)
	}
}

func TestUpdateEndsATrial(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := revisionOf("one")
	r.Trial = &Trial{Back: 7, Window: time.Minute, Deadline: time.Unix(61, 0).UTC()}
	saved, err := s.Save(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(1); err != nil || cmp.Diff(saved, got) != "" {
		t.Errorf("Load (%v) (-want +got):\n%s", err, cmp.Diff(saved, got))
	}
	saved.Trial, saved.Failed = nil, "nobody confirmed it"
	if err := s.Update(saved); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(1); err != nil || cmp.Diff(saved, got) != "" {
		t.Errorf("Load after Update (%v) (-want +got):\n%s", err, cmp.Diff(saved, got))
	}
}

func TestAWindowNeverGrows(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	trial := Trial{Window: 2 * time.Minute, Deadline: begin.Add(2 * time.Minute)}
	for _, c := range []struct {
		now  time.Time
		want time.Duration
	}{
		{begin, 2 * time.Minute},
		{begin.Add(90 * time.Second), 30 * time.Second},
		{begin.Add(2 * time.Minute), 0},
		{begin.Add(time.Hour), 0},
		{begin.Add(-24 * time.Hour), 2 * time.Minute}, // the clock was set back
	} {
		if got := trial.Left(c.now); got != c.want {
			t.Errorf("Left at %s = %s, want %s", c.now.Sub(begin), got, c.want)
		}
	}
}

// TestTrimKeepsTheLastTwo fills the store beyond its bytes: what is in force and what it would return to stay.
func TestTrimKeepsTheLastTwo(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if _, err := s.Save(revisionOf("x")); err != nil {
			t.Fatal(err)
		}
		// A sparse tail stands for a large policy; Trim looks at sizes only.
		if err := os.Truncate(s.path(n+1), KeepBytes/2+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Numbers(); err != nil || !slices.Equal(got, []int{3, 4}) {
		t.Errorf("Numbers = %v, %v; want 3 and 4", got, err)
	}
}

func TestSweepRemovesOnlyWhatAKilledWriteLeft(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".a.yaml" + unfinished + "123", ".a.yaml.swp", "a.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left %v (%v), want a.yaml and the editor's file", left, err)
	}
}
