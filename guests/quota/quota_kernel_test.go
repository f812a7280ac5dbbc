//go:build kernel

package quota

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted is a file system of 64 MiB that could keep project quotas, mounted with options.
func mounted(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	disk, point := filepath.Join(dir, "disk"), filepath.Join(dir, "point")
	for _, c := range [][]string{
		{"mkdir", point},
		{"truncate", "-s", "64M", disk},
		{"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", disk},
		{"mount", "-o", "loop," + options, disk, point},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return point
}

func TestKept(t *testing.T) {
	for options, want := range map[string]error{"prjquota": nil, "noquota": ErrNone} {
		if err := Kept(mounted(t, options)); !errors.Is(err, want) {
			t.Errorf("mounted with %s: %v, want %v", options, err, want)
		}
	}
	if err := Limit("/proc", 7, 1<<20); !errors.Is(err, ErrNone) {
		t.Errorf("a bound on /proc: %v", err)
	}
}

// TestLimit fills a folder of a project, without the right of root to exceed quotas.
func TestLimit(t *testing.T) {
	folder := filepath.Join(mounted(t, "prjquota"), "guest")
	if err := os.MkdirAll(filepath.Join(folder, "old"), 0o755); err != nil {
		t.Fatal(err)
	}
	const project = 1 << 30
	if err := errors.Join(Limit(folder, project, 2<<20), Give(folder, project)); err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]uint32{".": project, "old": 0} {
		if have, err := Project(filepath.Join(folder, part)); err != nil || have != want {
			t.Errorf("project of %s: %d, %v, want %d", part, have, err, want)
		}
	}
	fill := func(name string) error {
		script := "dd if=/dev/zero of=" + filepath.Join(folder, name) + " bs=64k count=64"
		return exec.Command("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-all", "sh", "-c", script).Run()
	}
	if err := fill("a"); err == nil {
		t.Error("4 MiB fit into 2")
	}
	if info, err := os.Stat(filepath.Join(folder, "a")); err != nil || info.Size() > 2<<20 || info.Size() < 1<<20 {
		t.Errorf("the file is %+v, %v: want what fits", info, err)
	}
	if err := fill("old/b"); err != nil {
		t.Errorf("a file that is of no project: %v", err)
	}
	if err := errors.Join(Limit(folder, project, 0), fill("a")); err != nil {
		t.Errorf("without a bound: %v", err)
	}
	if err := os.Symlink("a", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Give(filepath.Join(folder, "link"), 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link: %v, want that it is not followed", err)
	}
}
