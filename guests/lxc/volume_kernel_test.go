//go:build kernel

package lxc

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
)

// visitor counts its starts in a volume, and says whose the volume and what it writes there are.
const visitor = `
b() { /bin/busybox "$@"; }
b echo start >> /srv/data/log
b echo start >> /delta
b echo "volume $(b stat -c %u:%g:%a /srv/data) log $(b stat -c %u:%g /srv/data/log) was $(b cat /srv/data/was) by $(b stat -c %u:%g /srv/data/was)"
b touch /srv/pages/x && b echo wrote pages
b mount -o remount,rw,bind /srv/pages && b echo remounted pages
b mknod /srv/data/disk b 254 0 && b cat /srv/data/disk
b echo "starts $(b wc -l < /srv/data/log) delta $(b wc -l < /delta)."
exec /bin/busybox sleep 300`

// builds adds a newer build of the only image of a store, and something in the place of a volume to both.
func builds(t *testing.T, s image.Store) (older, newer string) {
	t.Helper()
	older, newer = "web-0123456789ab", "web-ba9876543210"
	was := filepath.Join(s.Dir, older, "rootfs/srv/data")
	for _, do := range []func() error{
		func() error { return os.MkdirAll(was, 0o755) },
		func() error { return os.WriteFile(filepath.Join(was, "was"), []byte("there"), 0o644) },
		func() error { return os.Chown(filepath.Join(was, "was"), 33, 44) },
		func() error { return os.Chown(was, 0, 33) },
		func() error { return os.Chmod(was, 0o775|os.ModeSetgid) },
		func() error { return os.MkdirAll(filepath.Join(s.Dir, newer), 0o755) },
		func() error {
			return os.CopyFS(filepath.Join(s.Dir, newer, "rootfs"), os.DirFS(filepath.Join(s.Dir, older, "rootfs")))
		},
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	img, err := s.Get(older)
	if err != nil {
		t.Fatal(err)
	}
	img.ID = newer
	text, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, newer, "image.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return older, newer
}

// said waits for a container's last word and returns all that it said.
func said(t *testing.T, d *Driver, name string) string {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		text, err := os.ReadFile(filepath.Join(d.Dir, name, "console.log"))
		if err == nil && strings.Contains(string(text), ".\r\n") {
			return strings.ReplaceAll(string(text), "\r", "")
		}
		if time.Now().After(deadline) {
			t.Fatalf("console: %q, %v", text, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A volume is its root's in the container, outlives a clone, a newer build of the image and the guest; what is read-only stays so.
func TestVolumeOutlivesTheClone(t *testing.T) {
	for _, privileged := range []bool{false, true} {
		t.Run(fmt.Sprintf("privileged %t", privileged), func(t *testing.T) { outlives(t, privileged) })
	}
}

func outlives(t *testing.T, privileged bool) {
	ctx := context.Background()
	const name = "volume-rs1"
	d := blade(t)
	d.Volumes.Dir = filepath.Join(d.Dir, ".volumes")
	t.Cleanup(func() { os.RemoveAll(d.Volumes.Dir) }) // before the driver's own clean-up
	d.Images = tiny(t, "/bin/busybox", "sh", "-c", visitor)
	older, newer := builds(t, d.Images)
	namespace(t, name)
	guest := policy.Guest{Name: name, Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1, Privileged: privileged, Volumes: []policy.Volume{
		{Name: "data", Path: "/srv/data"}, {Name: "pages", Path: "/srv/pages", ReadOnly: true},
	}}
	run := func(image, want string) {
		t.Helper()
		s := guests.Define(guest, image)
		do(t, "create", func() error { return d.Create(ctx, s) })
		if have := observed(t, d, name); len(have.Changes(s)) > 0 || have.Stale {
			t.Errorf("read back: %v, stale %v", have.Changes(s), have.Stale)
		}
		do(t, "start", func() error { return d.Start(ctx, name) })
		const whose = "volume 0:33:2775 log 0:33 was there by 33:44\n"
		words := said(t, d, name)
		if !strings.Contains(words, whose) || !strings.Contains(words, want) || strings.Contains(words, "pages\n") {
			t.Errorf("it says %q, want %q and %q", words, whose, want)
		}
		do(t, "stop", func() error { return d.Stop(ctx, name, 0) })
		if err := os.Remove(filepath.Join(d.Dir, name, "console.log")); err != nil {
			t.Fatal(err)
		}
	}
	run(older, "starts 1 delta 1.")
	run(older, "starts 2 delta 2.")
	run(newer, "starts 3 delta 1.")
	do(t, "destroy", func() error { return d.Destroy(ctx, name) })
	run(newer, "starts 4 delta 1.")

	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d.Volumes.Path(name, "data"), "log"), &st); err != nil || st.Uid != 0 || st.Gid != 33 {
		t.Errorf("on the disk: %v, %d:%d", err, st.Uid, st.Gid)
	}
	do(t, "destroy", func() error { return d.Destroy(ctx, name) })
	if left := leftovers(t, name); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if names, err := d.Volumes.Names(name); len(names) != 2 || err != nil {
		t.Errorf("volumes after the guest: %v, %v", names, err)
	}
}
