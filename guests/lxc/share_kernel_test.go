//go:build kernel

package lxc

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// TestTheBladeKeepsItsShare lets a container fork and fill memory without end: it meets its own limits, and above them those of all
// containers together, which leave the blade something.
func TestTheBladeKeepsItsShare(t *testing.T) {
	ctx := context.Background()
	const name = "greedy-rs1"
	d := blade(t)
	d.Images = tiny(t, "/bin/busybox", "sleep", "300")
	namespace(t, name)
	s := guests.Define(policy.Guest{Name: name, Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1, PIDs: 40}, "web-0123456789ab")
	do(t, "create", func() error { return d.Create(ctx, s) })
	if o := observed(t, d, name); len(o.Changes(s)) > 0 {
		t.Errorf("read back it differs: %v", o.Changes(s))
	}
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	script := `i=0; while [ $i -lt 100 ]; do /bin/busybox sleep 100 >/dev/null 2>&1 & i=$((i+1)); done; echo all`
	status, out, err := execIn(ctx, t, d, name, nil, "/bin/busybox", "sh", "-c", script)
	if err != nil || status == 0 && strings.Contains(out, "all") {
		t.Errorf("a hundred forks: status %d, %q, %v", status, out, err)
	}
	if n := figure(t, filepath.Join(cgroupsOf(name)[1], "pids.max")); n != 40 {
		t.Errorf("its pids.max is %d, want 40", n)
	}
	if n := figure(t, filepath.Join(cgroupsOf(name)[1], "pids.current")); n > 40 {
		t.Errorf("it has %d processes", n)
	}
	do(t, "stop", func() error { return d.Stop(ctx, s.Name, 0) })
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	if status, out, err := execIn(ctx, t, d, name, nil, "/bin/busybox", "tail", "/dev/zero"); err != nil || status != 128+9 {
		t.Errorf("a program that wants all memory: status %d, %q, %v; want that it is killed", status, out, err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	total := int64(info.Totalram) * int64(info.Unit)
	if n := figure(t, filepath.Join(guestsGroup, "memory.max")); n > total*9/10 || n < total/2 {
		t.Errorf("all containers may have %d bytes of %d", n, total)
	}
	tasks, err := mostTasks()
	if err != nil {
		t.Fatal(err)
	}
	if n := figure(t, filepath.Join(guestsGroup, "pids.max")); n > tasks*3/4 || n < tasks/2 {
		t.Errorf("all containers may have %d processes of %d", n, tasks)
	}
}

func figure(t *testing.T, file string) int64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
