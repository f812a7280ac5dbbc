package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestImagePrune removes the one build that is neither the newest nor under a clone.
func TestImagePrune(t *testing.T) {
	store, state := t.TempDir(), t.TempDir()
	file := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for id, created := range map[string]string{"web-aaaaaaaaaaaa": "2026-03-01", "web-bbbbbbbbbbbb": "2026-03-02", "web-cccccccccccc": "2026-03-03"} {
		file(filepath.Join(store, id, "image.json"), `{"id": "`+id+`", "name": "web", "kind": "lxc", "created": "`+created+`T00:00:00Z"}`)
	}
	file(filepath.Join(state, "lxc", "www-1", "image"), "web-aaaaaaaaaaaa\n")
	got := ctl(t, "", "image", "prune", "--store", store, "--state", state)
	if got.status != exitOK || got.stdout != "web-bbbbbbbbbbbb removed, 0 MiB\n" {
		t.Errorf("status %d, %q, %q", got.status, got.stdout, got.stderr)
	}
	for id, stays := range map[string]bool{"web-aaaaaaaaaaaa": true, "web-bbbbbbbbbbbb": false, "web-cccccccccccc": true} {
		if _, err := os.Stat(filepath.Join(store, id)); (err == nil) != stays {
			t.Errorf("%s: %v, want that it stays: %v", id, err, stays)
		}
	}
}
