package guest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCopiesOfProgramsFollowTheirOriginals(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "bin")
	for _, text := range []string{"one", "another"} {
		if err := os.WriteFile(filepath.Join(from, "bladectl"), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyPrograms(from, to); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(to, "bladectl"))
		if err != nil || string(got) != text {
			t.Errorf("the copy is %q, %v; want %q", got, err, text)
		}
	}
	before, _ := os.Stat(filepath.Join(to, "bladectl"))
	if err := copyPrograms(from, to); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(filepath.Join(to, "bladectl")); !os.SameFile(before, after) {
		t.Error("an unchanged program was copied again")
	}
}

func TestNoProgramIsBuiltYet(t *testing.T) {
	if err := copyPrograms(filepath.Join(t.TempDir(), "bin"), filepath.Join(t.TempDir(), "bin")); err != nil {
		t.Error(err)
	}
}
