//go:build kernel

package lxc

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
)

// How long a clone and its start take beside the plain tools that end in the same state: a privileged container, since these cannot clone
// another from an image that is shared. The two alternate, and the middle of the rounds' ratios counts: the machine's other work falls on both.
func TestSpawnAgainstTheTools(t *testing.T) {
	ctx := context.Background()
	d := blade(t)
	namespace(t, "peer-rs1")
	spec := wanted(t, "peer-rs1")
	spec.Privileged = true
	plain, err := os.MkdirTemp("/var/tmp", "lxc-peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(plain)
	img, err := d.Images.Get(spec.Image)
	if err != nil {
		t.Fatal(err)
	}
	// lxc-copy wants the original's name in the path of its files.
	base := filepath.Join(plain, img.ID)
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	config := "lxc.uts.name = base\nlxc.rootfs.path = dir:" + img.Rootfs() + "\nlxc.namespace.share.net = /run/netns/peer-rs1\n" +
		"lxc.init.cmd = /usr/sbin/nginx\nlxc.signal.halt = SIGQUIT\nlxc.apparmor.profile = unconfined\nlxc.autodev = 1\nlxc.tty.max = 0\n" +
		"lxc.mount.auto = proc:mixed sys:ro\nlxc.cgroup2.memory.max = 64M\nlxc.cgroup2.pids.max = 1024\n"
	if err := os.WriteFile(filepath.Join(base, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	const rounds = 11
	var ours, theirs []time.Duration
	var ratios []float64
	for range rounds {
		began := time.Now()
		if err := d.Create(ctx, spec); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(ctx, spec.Name); err != nil {
			t.Fatal(err)
		}
		ours = append(ours, time.Since(began))
		if o := observed(t, d, "peer-rs1"); o.Phase != guests.Running {
			t.Fatalf("%+v", o)
		}
		if err := d.Stop(ctx, spec.Name, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Destroy(ctx, spec.Name); err != nil {
			t.Fatal(err)
		}

		began = time.Now()
		tool("lxc-copy", "-P", plain, "-p", plain, "-n", img.ID, "-N", "copy", "-s", "-B", "overlay")
		tool("lxc-start", "-P", plain, "-n", "copy")
		theirs = append(theirs, time.Since(began))
		ratios = append(ratios, float64(ours[len(ours)-1])/float64(theirs[len(theirs)-1]))
		tool("lxc-stop", "-P", plain, "-n", "copy", "-k")
		tool("lxc-destroy", "-P", plain, "-n", "copy")
	}
	slices.Sort(ratios)
	slices.Sort(ours)
	slices.Sort(theirs)
	t.Logf("clone and start: ours %v, lxc-copy and lxc-start %v, ratio %.2f (%.2f to %.2f)", ours[rounds/2], theirs[rounds/2], ratios[rounds/2], ratios[0], ratios[rounds-1])
}
