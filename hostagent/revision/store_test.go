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

func TestSaveKeepsABoundedNumber(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range Keep + 3 {
		if _, err := s.Save(revisionOf("x")); err != nil {
			t.Fatal(err)
		}
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
