//go:build kernel

package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/quota"
	"github.com/bladenet/bladenet/policy"
)

// disk is a file system of its own, of 256 MiB, that keeps project quotas, and the device that it is on.
func disk(t *testing.T) (point, device string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "disk") // on the machine's disk: what lies in memory takes no direct writes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file, point := filepath.Join(dir, "disk"), filepath.Join(dir, "point")
	shell := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	shell("chmod a+x " + dir + "; mkdir " + point + "; truncate -s 256M " + file + "; mkfs.ext4 -q -O quota,project -E quotatype=prjquota " + file)
	device = shell("losetup --find --show --direct-io=on " + file)
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	shell("mount -o prjquota " + device + " " + point)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return point, device
}

// sleeper is a container that does nothing, on an image of busybox.
func sleeper(name string) guests.Spec {
	return guests.Define(policy.Guest{Name: policy.GuestName(name), Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1}, "web-0123456789ab")
}

// TestAContainerHasItsDisk lets containers with and without a user namespace write more than their entry says, and more once it says more.
func TestAContainerHasItsDisk(t *testing.T) {
	ctx := context.Background()
	point, _ := disk(t)
	d := bladeIn(t, point)
	d.Images = tiny(t, "/bin/busybox", "sleep", "300")
	for _, privileged := range []bool{false, true} {
		name := fmt.Sprintf("full-rs-%v", privileged)
		namespace(t, name)
		s := sleeper(name)
		s.Privileged = privileged
		written := func(what string, bound int64) {
			t.Helper()
			s.Disk = bound
			do(t, what, func() error {
				return errors.Join(d.Stop(ctx, s.Name, 0), d.Create(ctx, s), d.Start(ctx, s.Name))
			})
			if o := observed(t, d, name); len(o.Changes(s)) > 0 || o.Stale {
				t.Errorf("%s: read back it differs: %v", what, o.Changes(s))
			}
			status, out, err := execIn(ctx, t, d, policy.GuestName(name), nil, "/bin/busybox", "sh", "-c", "/bin/busybox dd if=/dev/zero of=/tmp/file bs=64k count=256; /bin/busybox stat -c %s /tmp/file")
			lines := strings.Fields(out)
			if err != nil || status != 0 || len(lines) == 0 {
				t.Fatalf("%s: status %d, %q, %v", what, status, out, err)
			}
			size, err := strconv.ParseInt(lines[len(lines)-1], 10, 64)
			if err != nil {
				t.Fatalf("%s: %q", what, out)
			}
			if want := int64(16 << 20); bound > 0 && bound < want && (size >= bound || size < bound/2) || (bound == 0 || bound > want) && size != want {
				t.Errorf("%s: it wrote %d bytes: %s", what, size, out)
			}
		}
		written("no bound", 0)
		if status, out, err := execIn(ctx, t, d, policy.GuestName(name), nil, "/bin/busybox", "rm", "/tmp/file"); err != nil || status != 0 {
			t.Fatalf("rm: status %d, %q, %v", status, out, err)
		}
		written("a bound of 4 MiB", 4<<20)
		written("of 32 MiB", 32<<20)
		written("of 8 MiB, on a new clone", renewed(t, d, s, 8<<20))
		do(t, "stop", func() error { return d.Stop(ctx, s.Name, 0) })
		do(t, "destroy", func() error { return d.Destroy(ctx, s.Name) })
		written("no bound again, with the same ids", 0)
	}
}

// renewed takes a container's clone away and returns a bound for its next one.
func renewed(t *testing.T, d *Driver, s guests.Spec, bound int64) int64 {
	t.Helper()
	ctx := context.Background()
	do(t, "stop and destroy", func() error { return errors.Join(d.Stop(ctx, s.Name, 0), d.Destroy(ctx, s.Name)) })
	return bound
}

// TestNoQuotasNoContainer: what cannot be bounded is not made.
func TestNoQuotasNoContainer(t *testing.T) {
	d := blade(t)
	d.Images = tiny(t, "/bin/busybox", "sleep", "300")
	s := sleeper("free-rs1")
	s.Disk = 1 << 20
	if err := d.Create(context.Background(), s); !errors.Is(err, quota.ErrNone) {
		t.Errorf("create: %v, want a word on quotas", err)
	}
}

// TestAContainerHasItsWeight has two containers write to one disk as fast as they can: the heavier one gets further.
func TestAContainerHasItsWeight(t *testing.T) {
	ctx := context.Background()
	point, device := disk(t)
	if out, err := exec.Command("modprobe", "bfq").CombinedOutput(); err != nil {
		t.Fatalf("modprobe bfq: %v: %s", err, out)
	}
	if err := os.WriteFile("/sys/block/"+filepath.Base(device)+"/queue/scheduler", []byte("bfq"), 0); err != nil {
		t.Fatal(err)
	}
	d := bladeIn(t, point)
	d.Images = tiny(t, "/bin/busybox", "sleep", "300")
	weights := map[string]int{"light-rs1": 10, "heavy-rs1": 1000}
	for name, weight := range weights {
		namespace(t, name)
		s := sleeper(name)
		s.IOWeight = weight
		do(t, "start "+name, func() error { return errors.Join(d.Create(ctx, s), d.Start(ctx, s.Name)) })
		for _, file := range weighs {
			text, err := os.ReadFile(filepath.Join(cgroupsOf(policy.GuestName(name))[1], file))
			if err != nil || !strings.Contains(string(text), strconv.Itoa(weight)) {
				t.Errorf("%s of %s: %q, %v, want %d", file, name, text, err, weight)
			}
		}
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	wrote := map[string]int64{}
	for name := range weights {
		wait.Go(func() {
			script := "/bin/busybox timeout 5 /bin/busybox sh -c 'while :; do /bin/busybox dd if=/dev/zero of=/tmp/file bs=64k count=256 oflag=direct conv=notrunc 2>/dev/null && echo done; done'"
			_, out, err := execIn(ctx, t, d, policy.GuestName(name), nil, "/bin/busybox", "sh", "-c", script)
			mu.Lock()
			defer mu.Unlock()
			wrote[name] = int64(strings.Count(out, "done"))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	t.Logf("wrote %v times 16 MiB", wrote)
	if wrote["heavy-rs1"] < 2*wrote["light-rs1"] || wrote["heavy-rs1"] == 0 {
		t.Errorf("wrote %v, want twice as much of the one that weighs a hundred times as much", wrote)
	}
}
