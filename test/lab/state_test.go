package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stateHere puts the labs' state into a folder of the test.
func stateHere(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
}

func makeLab(t *testing.T, name string) *Lab {
	t.Helper()
	l, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "src", "images"} {
		if err := os.MkdirAll(l.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestOpenJudgesNames(t *testing.T) {
	stateHere(t)
	for name, good := range map[string]bool{
		"a": true, "default": true, "x-1": true, "": false, "..": false, "a/b": false, "A": false, "-a": false, "a b": false, strings.Repeat("a", 32): false,
	} {
		if _, err := Open(name); (err == nil) != good {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "/"+strings.Repeat("x", 100))
	if _, err := Open("default"); err == nil {
		t.Error("a path too long for a socket was accepted")
	}
}

func TestDownRemovesALabThatEnded(t *testing.T) {
	stateHere(t)
	l := makeLab(t, "one")
	_, p := startSleep(t)
	_, machine := startSleep(t)
	for name, value := range map[string]any{fileSupervisor: p, fileRunning: running{Port: 1, Machine: machine}, fileSpec: spec{Name: "one", TTL: time.Hour, Started: time.Now()}} {
		if err := l.write(name, value); err != nil {
			t.Fatal(err)
		}
	}
	labs, err := List()
	if err != nil || len(labs) != 1 || !labs[0].Alive || labs[0].Name != "one" {
		t.Fatalf("got %v and %v, want one lab that is alive", labs, err)
	}
	for range 2 {
		if err := Down("one"); err != nil {
			t.Fatal(err)
		}
	}
	if p.alive() || machine.alive() {
		t.Error("a process lives on")
	}
	if _, err := os.Stat(Folder()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

func TestDownDoesNotDescend(t *testing.T) {
	stateHere(t)
	l := makeLab(t, "one")
	precious := filepath.Join(l.path("src"), "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Down("one"); err == nil {
		t.Error("a share with files in it was no error")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("a file of a share is gone: %v", err)
	}
}

func TestWhyTellsTheReason(t *testing.T) {
	stateHere(t)
	l, err := Open("one")
	if err != nil {
		t.Fatal(err)
	}
	if text := l.why().Error(); !strings.Contains(text, "is not up") {
		t.Errorf("a lab that never was: %s", text)
	}
	makeLab(t, "one")
	if err := l.write(fileEnd, ending{Reason: "its time to live is over"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.path(fileConsole), []byte("first\nKernel panic\nlast\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, err := l.Exec(t.Context(), Command{Args: []string{"true"}})
	want := "lab one no longer runs: its time to live is over\n--- end of " + l.path(fileConsole) + "\nKernel panic\nlast"
	if status != 125 || err == nil {
		t.Fatalf("got status %d and %v", status, err)
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
}
