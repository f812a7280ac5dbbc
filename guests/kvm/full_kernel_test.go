//go:build kernel

package kvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
)

// TestAMachineWaitsForRoom boots a machine on a file system that has no room for its first write. It is paused, keeps its write, and goes on as
// soon as there is room; its kernel hears of no error.
func TestAMachineWaitsForRoom(t *testing.T) {
	ctx := context.Background()
	const name = "full-dir1"
	d := blade(t)
	if err := unix.Mount("tmpfs", d.Dir, "tmpfs", 0, "size=256m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(d.Stop(ctx, name, 0), d.Destroy(ctx, name), unix.Unmount(d.Dir, 0)); err != nil {
			t.Error(err)
		}
	})
	spec := wanted(t, name, 78)
	taps(t, spec)
	do(t, "create", func() error { return d.Create(ctx, spec) })
	ballast := filepath.Join(d.Dir, "ballast")
	fill(t, ballast)
	do(t, "start", func() error { return d.Start(ctx, name) })
	waitFor(t, d, name, guests.Paused)
	if o := observed(t, d, name); o.Reason != diskError || o.Resumes {
		t.Errorf("on a full disk: %+v, want it to wait for room", o)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	paused := observed(t, d, name)
	if !paused.Resumes {
		t.Errorf("with room: %+v, want it to go on", paused)
	}
	do(t, "go on", func() error { return d.Start(ctx, name) })
	said(t, d, name, "bladeguest is init", 1, 3*time.Minute)
	if o := observed(t, d, name); o.Phase != guests.Running || o.PID != paused.PID {
		t.Errorf("after it: %+v, want the same machine, running", o)
	}
	if text, err := os.ReadFile(d.ConsoleLog(name)); err != nil || regexp.MustCompile(`I/O error|EXT4-fs error`).Match(text) {
		t.Errorf("its kernel heard of the full disk: %v\n%s", err, text)
	}
}

// fill writes a file until its file system has no room left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, d *Driver, name string, phase guests.Phase) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); observed(t, d, name).Phase != phase; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not %s: %+v", name, phase, observed(t, d, name))
		}
	}
}
