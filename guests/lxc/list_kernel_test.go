//go:build kernel

package lxc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// TestListOfManyContainers looks at what a list of 200 defined containers costs: no process, and a few files of each. How long it takes
// is printed; the target of 100 ms is for a blade's hardware, not for an emulated processor.
func TestListOfManyContainers(t *testing.T) {
	const count, mostOpens = 200, 6
	ctx := context.Background()
	d := blade(t)
	d.Images = tiny(t, "/bin/busybox", "sleep", "1000000")
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	for i := range count {
		name := fmt.Sprintf("listed-%d", i)
		s := guests.Define(policy.Guest{Name: policy.GuestName(name), Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1}, "web-0123456789ab")
		if err := d.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count { // a creation reads the ids of the others
		if _, err := unix.InotifyAddWatch(watch, filepath.Join(d.Dir, fmt.Sprintf("listed-%d", i)), unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &before); err != nil {
		t.Fatal(err)
	}
	took, opens := time.Hour, 0
	const lists = 3
	for range lists {
		begin := time.Now()
		found, err := d.Observe(ctx)
		if err != nil || len(found) != count {
			t.Fatalf("%d containers, %v; want %d", len(found), err, count)
		}
		took = min(took, time.Since(begin))
		opens += opened(t, watch)
	}
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &after); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d containers listed in %s; %.1f files of each opened", count, took.Round(100*time.Microsecond), float64(opens)/lists/count)
	if after.Minflt != before.Minflt { // a process that was waited for has touched memory
		t.Error("a list forks")
	}
	if opens == 0 || opens > mostOpens*lists*count {
		t.Errorf("%d files opened by %d lists of %d containers, want from 1 to %d of each", opens, lists, count, mostOpens)
	}
}

// opened counts the events of an inotify descriptor (inotify(7): 16 bytes, the last four the length of the name that follows).
func opened(t *testing.T, watch int) (n int) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for {
		size, err := unix.Read(watch, buf)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		for rest := buf[:size]; len(rest) >= unix.SizeofInotifyEvent; n++ {
			if mask := binary.NativeEndian.Uint32(rest[4:]); mask&unix.IN_Q_OVERFLOW != 0 {
				t.Fatal("events were lost")
			}
			rest = rest[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(rest[12:]):]
		}
	}
}
