//go:build kernel

package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// bootstrapper puts a stand-in for mmdebstrap first in the path: it writes the little that a tree must have, or fails, or hangs.
func bootstrapper(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// last is the argument before which options stand: the tree.
const tree = `for tree; do :; done
mkdir -p "$tree/var/lib/dpkg" "$tree/usr/bin" "$tree/cache/x"; ln -s usr/bin "$tree/bin"; ln -s ../../etc "$tree/usr/escape"
printf 'Package: base\nVersion: 1.2-3\nDescription: x\n\nPackage: shell\nVersion: 4\n' > "$tree/var/lib/dpkg/status"
`

func recipe(t *testing.T, extra string) Recipe {
	t.Helper()
	r, err := ParseRecipe([]byte("name: tiny\nkind: lxc\nsuite: bookworm\ncommand: [/bin/a]\nfiles: [{path: /bin/a, mode: '0755', content: hello}]\nremove: ['/cache/*']\n" + extra))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What the machine that builds is called and whom it asks is not in an image, unless the recipe says so itself.
func TestBuildForgetsItsMachine(t *testing.T) {
	bootstrapper(t, tree+`mkdir -p "$tree/etc"; echo nameserver 192.0.2.53 > "$tree/etc/resolv.conf"; echo builder > "$tree/etc/hostname"`)
	for own, want := range map[string]string{"": "", "/etc/resolv.conf": "mine"} {
		r := recipe(t, "")
		if own != "" {
			r.Files = append(r.Files, File{Path: own, Content: want})
		}
		i, err := Build(context.Background(), r, Store{Dir: filepath.Join(t.TempDir(), "images")}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range hostFiles {
			text, err := os.ReadFile(filepath.Join(i.Rootfs(), path))
			if path == own && string(text) != want || path != own && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("own %q: %s is %q, %v", own, path, text, err)
			}
		}
	}
}

func empty(t *testing.T, s Store) {
	t.Helper()
	left, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

func TestBuild(t *testing.T) {
	bootstrapper(t, tree)
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	var steps []string
	o := Options{Progress: func(step string, took time.Duration) {
		if took > 0 {
			steps = append(steps, step)
		}
	}}
	i, err := Build(context.Background(), recipe(t, ""), s, o)
	if err != nil {
		t.Fatal(err)
	}
	if i.Name != "tiny" || i.Kind != policy.DriverLXC || strings.Join(i.Packages, " ") != "base=1.2-3 shell=4" || i.Size == 0 || i.Created.IsZero() {
		t.Errorf("%+v", i)
	}
	if strings.Join(steps, " ") != "packages files commands" {
		t.Errorf("steps %v", steps)
	}
	text, err := os.ReadFile(filepath.Join(i.Rootfs(), "usr/bin/a"))
	if err != nil || string(text) != "hello" {
		t.Errorf("file through the link: %q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(i.Rootfs(), "cache/*")); len(left) > 0 {
		t.Errorf("not removed: %v", left)
	}
	// The same inputs and packages again are the same image; without a tool, as missing only, none is needed.
	again, err := Build(context.Background(), recipe(t, ""), s, Options{})
	if err != nil || again.ID != i.ID || !again.Created.Equal(i.Created) {
		t.Errorf("again: %s, %v; was %s", again.ID, err, i.ID)
	}
	bootstrapper(t, "exit 1")
	quick, err := Build(context.Background(), recipe(t, ""), s, Options{IfMissing: true})
	if err != nil || quick.ID != i.ID {
		t.Errorf("if missing: %s, %v", quick.ID, err)
	}
	if _, err := Build(context.Background(), recipe(t, "halt: SIGINT\n"), s, Options{IfMissing: true}); err == nil {
		t.Error("another recipe counts as present")
	}
	if images, err := s.List(); err != nil || len(images) != 1 {
		t.Errorf("%v, %v", images, err)
	}
}

// A tree that links out of itself must not make the build write there.
func TestBuildStaysInTheTree(t *testing.T) {
	outside := t.TempDir()
	bootstrapper(t, tree+`ln -s "`+outside+`" "$tree/out"; ln -s ../../../../../../../.."`+outside+`" "$tree/up"`)
	for _, path := range []string{"/out/a", "/up/a"} {
		s := Store{Dir: filepath.Join(t.TempDir(), "images")}
		r := recipe(t, "")
		r.Files = []File{{Path: path, Content: "x"}}
		if _, err := Build(context.Background(), r, s, Options{}); err == nil {
			t.Errorf("%s: no error", path)
		}
		empty(t, s)
	}
	empty(t, Store{Dir: outside})
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	bootstrapper(t, tree+"echo 'E: no such package' >&2; exit 3")
	if _, err := Build(context.Background(), recipe(t, ""), s, Options{}); err == nil || !strings.Contains(err.Error(), "no such package") {
		t.Errorf("failing tool: %v", err)
	}
	empty(t, s)
	bootstrapper(t, tree)
	if _, err := Build(context.Background(), recipe(t, "commands: ['exit 7']\n"), s, Options{}); err == nil {
		t.Error("failing command: no error")
	}
	empty(t, s)
	bootstrapper(t, tree+"mount -t tmpfs none \"$tree/var\"; exec sleep 60")
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := Build(ctx, recipe(t, ""), s, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	empty(t, s)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), s.Dir) {
		t.Error("a mount is left behind")
	}
}

// What a killed build left goes with the next build; what a live one works in stays.
func TestLeftovers(t *testing.T) {
	bootstrapper(t, tree)
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	dead, live := filepath.Join(s.Dir, ".build-tiny-1"), filepath.Join(s.Dir, ".build-other-2")
	half := filepath.Join(s.Dir, ".remove-web-000000000000")
	for _, dir := range []string{dead, live, half} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockDir(live)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Build(context.Background(), recipe(t, ""), s, Options{}); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{dead: false, live: true, half: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
