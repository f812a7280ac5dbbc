//go:build kernel

package lxc

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// intruder is what root in a container tries, at its first boot and, after a reboot by itself, at its second.
const intruder = `
b() { /bin/busybox "$@"; }
try() { what=$1; shift; if "$@" >/tmp/out 2>&1; then echo "can $what"; else echo "cannot $what"; fi; }
b echo boot >>/boots
echo "boot $(b wc -l </boots)"
echo "root $(b stat -c %u:%g /) program $(b stat -c %u:%g /bin/busybox) page $(b stat -c %u:%g /page) secret $(b stat -c %u:%g /secret)"
try write-its-file b touch /new
try give-it-away b chown 33:33 /new
try listen b httpd -p 192.0.2.10:80
try read-the-blades b cat /secret
try change-the-blades b rmdir /secrets/one
try read-the-blades-disk b dd if=/disk of=/dev/null bs=1 count=1
try make-a-device b mknod /tmp/disk b 254 0
try mount b mount -t tmpfs none /tmp
try bind b mount -o bind /bin /tmp
try write-sysctls b mount -o remount,bind,rw /proc/sys
try add-an-address b ip address add 192.0.2.99/32 dev lo
try add-a-link b ip link add d0 type dummy
try set-a-link-down b ip link set lo down
try answer-arp b sh -c '/bin/busybox echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore'
try take-ports b sh -c '/bin/busybox echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start'
try overcommit b sh -c '/bin/busybox echo 1 >/proc/sys/vm/overcommit_memory'
try sysrq b sh -c '/bin/busybox echo h >/proc/sysrq-trigger'
try load-a-module b insmod /bin/busybox
try name-itself b hostname other
try make-a-namespace b unshare -r b true
try read-the-kernels-log b dmesg
try set-the-clock b sh -c '/bin/busybox date -s 2020-01-01; [ "$(/bin/busybox date +%Y)" = 2020 ]'
try raise-its-priority b nice -n -5 /bin/busybox true
set -- /proc/[0-9]*
echo "processes $#"
if [ "$(b wc -l </boots)" = 1 ]; then b reboot -f; fi
echo done
exec /bin/busybox sleep 300
`

// may is all that it can of these.
var may = []string{"write-its-file", "give-it-away", "listen"}

// prepared is a store with an image whose init runs a script and may reboot, with a device of the blade's disk and a page in it.
func prepared(t *testing.T, d *Driver, script string) {
	t.Helper()
	d.Images = tiny(t, "/bin/busybox", "sh", "-c", script)
	dir := filepath.Join(d.Images.Dir, "web-0123456789ab")
	img, err := d.Images.Get("web-0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	img.Capabilities = []string{"sys_boot"}
	text, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	disk, page := filepath.Join(dir, "rootfs/disk"), filepath.Join(dir, "rootfs/page")
	for _, do := range []func() error{
		func() error { return os.WriteFile(filepath.Join(dir, "image.json"), text, 0o644) },
		func() error { return unix.Mknod(disk, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, // /dev/zero reads everywhere
		func() error { return os.Chmod(disk, 0o666) },
		func() error { return os.WriteFile(page, []byte("page"), 0o600) },
		func() error { return os.Chown(page, 33, 44) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
}

// spoken waits until a container has said a word and returns all that it said, in words of a boot.
func spoken(t *testing.T, d *Driver, name, last string) string {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		text, err := os.ReadFile(filepath.Join(d.Dir, name, "console.log"))
		if err == nil && strings.Contains(string(text), last) {
			return strings.ReplaceAll(string(text), "\r", "")
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the console: %s, %v", last, text, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Root in a container is nobody on the blade, and can do nothing there but serve; also after it rebooted itself.
func TestRootInAContainerIsNobody(t *testing.T) {
	ctx := context.Background()
	const name, other = "nobody-rs1", "nobody-rs2"
	d := blade(t)
	prepared(t, d, intruder)
	var bases []uint32
	for _, n := range []policy.GuestName{other, name} {
		namespace(t, string(n))
		s := guests.Define(policy.Guest{Name: n, Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1}, "web-0123456789ab")
		do(t, "create", func() error { return d.Create(ctx, s) })
		// What the blade's root put there itself is as far away as what it has elsewhere.
		delta := filepath.Join(d.dir(n), "delta")
		for _, err := range []error{
			os.WriteFile(filepath.Join(delta, "secret"), []byte("neighbour"), 0o600), os.MkdirAll(filepath.Join(delta, "secrets/one"), 0o755),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		do(t, "start", func() error { return d.Start(ctx, n) })
		base, err := d.reserve(n)
		if err != nil {
			t.Fatal(err)
		}
		bases = append(bases, base)
	}
	if bases[0] == bases[1] || min(bases[0], bases[1]) == 0 {
		t.Errorf("ids of the two: %d", bases)
	}
	said := spoken(t, d, name, "done\r\n")
	boots := strings.Split(said, "boot ")[1:]
	if len(boots) != 2 {
		t.Fatalf("it booted %d times, not twice: %s", len(boots), said)
	}
	for i, boot := range boots {
		judgeBoot(t, i+1, boot)
	}
	judgeOutside(t, d, name, bases[1])
	for _, n := range []policy.GuestName{other, name} {
		do(t, "stop", func() error { return d.Stop(ctx, n, 0) })
		do(t, "destroy", func() error { return d.Destroy(ctx, n) })
		if left := leftovers(t, string(n)); len(left) > 0 {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
	}
}

// judgeBoot compares what a container said at one of its boots with what it may.
func judgeBoot(t *testing.T, n int, said string) {
	t.Helper()
	// Its processes are this script and the server that it began.
	for _, want := range []string{fmt.Sprintln(n), "root 0:0 program 0:0 page 33:44 secret 65534:65534\n", "processes 2\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("boot %d: no %q in what it says: %s", n, want, said)
		}
	}
	var can []string
	refused := 0
	for line := range strings.Lines(said) {
		if what, ok := strings.CutPrefix(strings.TrimSpace(line), "can "); ok {
			can = append(can, what)
		} else if strings.HasPrefix(line, "cannot ") {
			refused++
		}
	}
	if !slices.Equal(can, may) || refused != strings.Count(intruder, "\ntry ")-len(may) {
		t.Errorf("boot %d: it can %q and not %d more; want %q", n, can, refused, may)
	}
}

// judgeOutside compares what the blade sees of a container.
func judgeOutside(t *testing.T, d *Driver, name string, base uint32) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", observed(t, d, name).PID))
	if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t%[1]d\t%[1]d\t%[1]d\n", base)) {
		t.Errorf("its root is not %d here: %v\n%s", base, err, status)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(d.Dir, name, "delta/new"), &st); err != nil || st.Uid != base+33 || st.Gid != base+33 {
		t.Errorf("its file is %d:%d here, %v; want %d", st.Uid, st.Gid, err, base+33)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "/run/bladenet/root") {
		t.Errorf("its root is mounted on the blade: %v", err)
	}
	// Nor does its monitor keep the network namespace of another guest alive.
	mounts, err = os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", parent(t, observed(t, d, name).PID)))
	if err != nil || !strings.Contains(string(mounts), "/run/bladenet/root") {
		t.Errorf("its monitor has not its root: %v", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " - nsfs ") && !strings.Contains(line, "/"+name+" ") && !strings.Contains(line, " master:") {
			t.Errorf("its monitor keeps %s", line)
		}
	}
}

// A container that an older version made runs on as it is, counts as one that has to change, and becomes nobody when it is made anew.
func TestAPrivilegedContainerIsMadeAnew(t *testing.T) {
	ctx := context.Background()
	const name = "older-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	old := spec
	old.Privileged = true
	do(t, "create", func() error { return d.Create(ctx, old) })
	do(t, "start", func() error { return d.Start(ctx, old.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
	o := observed(t, d, name)
	if got := o.Changes(spec); !slices.Equal(got, []string{"privileged true -> false"}) || o.Phase != guests.Running {
		t.Errorf("it has to change %q, %+v", got, o)
	}
	do(t, "stop", func() error { return d.Stop(ctx, old.Name, 0) })
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", observed(t, d, name).PID), &st); err != nil || st.Uid < firstID {
		t.Errorf("its root is %d here, %v", st.Uid, err)
	}
}

// What a user namespace costs a clone and its start: the two kinds alternate, and the middle of the rounds' ratios is printed.
func TestWhatAUserNamespaceCosts(t *testing.T) {
	ctx := context.Background()
	const name = "cost-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	spawn := func(privileged bool) time.Duration {
		s := spec
		s.Privileged = privileged
		began := time.Now()
		if err := d.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(ctx, s.Name); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if err := d.Stop(ctx, s.Name, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Destroy(ctx, s.Name); err != nil {
			t.Fatal(err)
		}
		return took
	}
	const rounds = 9
	var ratios []float64
	for range rounds {
		nobody, root := spawn(false), spawn(true)
		ratios = append(ratios, float64(nobody)/float64(root))
		t.Logf("unprivileged %v, privileged %v", nobody.Round(time.Millisecond/10), root.Round(time.Millisecond/10))
	}
	slices.Sort(ratios)
	t.Logf("clone and start: ratio %.2f (%.2f to %.2f)", ratios[rounds/2], ratios[0], ratios[rounds-1])
}
