package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file of testdata, or rewrites the file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// derived is one blade's state as indented JSON.
func derived(t testing.TB, f *Fleet, name BladeName) []byte {
	t.Helper()
	b, err := Derive(f, name)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDeriveNantes(t *testing.T) {
	f := nantes(t)
	for _, b := range f.Blades {
		golden(t, "derived/"+string(b.Name)+".json", derived(t, f, b.Name))
	}
}

func TestDeriveUnknownBlade(t *testing.T) {
	if _, err := Derive(nantes(t), "lame-x9"); err == nil {
		t.Error("an unknown blade is derived")
	}
}
