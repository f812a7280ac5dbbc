package director

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bladenet/bladenet/guests/channel"
)

func TestStore(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "deep", "state.json")}
	if _, found, err := s.Load(); found || err != nil {
		t.Errorf("nothing saved: found %v, error %v", found, err)
	}
	for _, want := range []channel.Apply{state("one"), {Revision: "two"}} {
		if err := s.Save(want); err != nil {
			t.Fatal(err)
		}
		got, found, err := s.Load()
		if err != nil || !found {
			t.Fatalf("found %v, error %v", found, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(addr("::1"))); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	files, err := os.ReadDir(filepath.Dir(s.Path))
	if err != nil || len(files) != 1 {
		t.Errorf("files %v, error %v", files, err)
	}
}

func TestStoreKeepsTheOldStateOnError(t *testing.T) {
	dir := t.TempDir()
	s := Store{filepath.Join(dir, "state.json")}
	if err := os.Mkdir(s.Path, 0o700); err != nil { // a directory where the file should go cannot be replaced
		t.Fatal(err)
	}
	if err := s.Save(state("one")); err == nil {
		t.Error("no error")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("left %v, error %v", files, err)
	}
	if _, _, err := s.Load(); err == nil {
		t.Error("no error for a directory")
	}
}

func TestLoadGarbage(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "state.json")}
	if err := os.WriteFile(s.Path, []byte(`{"revision":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Load(); found || err == nil {
		t.Errorf("found %v, error %v", found, err)
	}
}
