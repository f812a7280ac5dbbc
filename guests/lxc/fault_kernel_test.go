//go:build kernel

package lxc

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
)

func TestMistakesOfAContainer(t *testing.T) {
	ctx := context.Background()
	const name = "bad-rs1"
	d := blade(t)
	spec := wanted(t, name)
	if err := d.Start(ctx, spec.Name); err == nil || !strings.Contains(err.Error(), "not created") {
		t.Errorf("start of nothing: %v", err)
	}
	missing := spec
	missing.Image = "web-000000000000"
	if err := d.Create(ctx, missing); err == nil || !strings.Contains(err.Error(), "bladectl image build web") {
		t.Errorf("create without an image: %v", err)
	}
	do(t, "create", func() error { return d.Create(ctx, spec) })
	if err := d.Start(ctx, spec.Name); err == nil || !strings.Contains(err.Error(), "network namespace is not ready") {
		t.Errorf("start without a namespace: %v", err)
	}
	namespace(t, name)
	config := filepath.Join(d.Dir, name, "config")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(text), "/seccomp\n", "/nowhere\n", 1)
	if err := os.WriteFile(config, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := observed(t, d, name); !o.Stale {
		t.Error("an edited configuration is not seen")
	}
	err = d.Start(ctx, spec.Name)
	if err == nil {
		t.Fatal("start with a missing filter of system calls: no error")
	}
	t.Log(err)
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
}

// Without its monitor liblxc calls a container stopped although its processes live; a start must not run it twice.
func TestMonitorKilled(t *testing.T) {
	ctx := context.Background()
	const name = "orphan-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
	pid := observed(t, d, name).PID
	if err := syscall.Kill(parent(t, pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for observed(t, d, name).Phase == guests.Running {
		if time.Now().After(deadline) {
			t.Fatal("a container without a monitor counts as running")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("%+v", observed(t, d, name))
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
	if o := observed(t, d, name); o.Phase != guests.Running || o.PID == pid {
		t.Errorf("after the second start: %+v, init was %d", o, pid)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("the first init, %d, still lives", pid)
	}
	do(t, "stop", func() error { return d.Stop(ctx, spec.Name, 10*time.Second) })
	do(t, "destroy", func() error { return d.Destroy(ctx, spec.Name) })
	if left := leftovers(t, name); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// A monitor that hangs holds up neither the agent nor other containers, and its container can still be ended.
func TestMonitorHangs(t *testing.T) {
	ctx := context.Background()
	const name, other = "silent-rs1", "silent-rs2"
	d := blade(t)
	d.Timeout = time.Second
	namespace(t, name)
	spec := wanted(t, name)
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "create", func() error { return d.Create(ctx, wanted(t, other)) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	monitor := parent(t, observed(t, d, name).PID)
	if err := syscall.Kill(monitor, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(monitor, syscall.SIGCONT) }()
	for i := range 3 {
		began := time.Now()
		o := observed(t, d, name)
		if o.Phase != guests.Paused || o.Reason != errSilent.Error() {
			t.Errorf("observed %+v", o)
		}
		if o := observed(t, d, other); o.Phase != guests.Stopped {
			t.Errorf("the other: %+v", o)
		}
		if took := time.Since(began); took > 10*time.Second || i > 0 && took > time.Second {
			t.Errorf("observation %d took %v", i, took)
		}
	}
	do(t, "stop", func() error { return d.Stop(ctx, spec.Name, 0) })
	deadline := time.Now().Add(10 * time.Second)
	for observed(t, d, name).Phase != guests.Stopped {
		if time.Now().After(deadline) {
			t.Fatalf("after stop: %+v", observed(t, d, name))
		}
		time.Sleep(10 * time.Millisecond)
	}
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
}

// An interrupted creation or removal leaves a part that counts as one, and the next call ends the work.
func TestHalfContainers(t *testing.T) {
	ctx := context.Background()
	const name = "half-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	for _, missing := range []string{"config", "delta", "image", "ids", "seccomp"} {
		do(t, "create", func() error { return d.Create(ctx, spec) })
		if err := os.RemoveAll(filepath.Join(d.Dir, name, missing)); err != nil {
			t.Fatal(err)
		}
		if o := observed(t, d, name); missing != "seccomp" && o.Phase != guests.Partial {
			t.Errorf("without %s: %+v", missing, o)
		}
	}
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
}
