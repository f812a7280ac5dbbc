package policy

import (
	"path/filepath"
	"testing"
)

// nantes loads the reference fleet and fails on any error in it.
func nantes(t testing.TB) *Fleet {
	t.Helper()
	f, ds := Load(read(t, "testdata/fleets/nantes"))
	if ds.HasErrors() {
		t.Fatalf("the reference fleet:\n%s", ds)
	}
	return f
}

// read reads a folder and names its files without it.
func read(t testing.TB, dir string) []File {
	t.Helper()
	files, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i].Name = filepath.Base(files[i].Name)
	}
	return files
}

func TestNantesLoads(t *testing.T) {
	f, ds := Load(read(t, "testdata/fleets/nantes"))
	if len(ds) > 0 {
		t.Fatalf("findings in the reference fleet:\n%s", ds)
	}
	counts := []int{len(f.Zones), len(f.Sites), len(f.Networks), len(f.Blades), len(f.Services), len(f.Directors), len(f.RealServers), len(f.Rules), len(f.Hosts), len(f.Alerts), len(f.Expectations)}
	want := []int{2, 3, 10, 6, 6, 6, 14, 4, 1, 1, 10}
	for i := range want {
		if counts[i] != want[i] {
			t.Errorf("section %d has %d entries, want %d", i, counts[i], want[i])
		}
	}
}
