//go:build kernel

package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestKernelOwners tries a file system that can show other owners and one that cannot, an overlay.
func TestKernelOwners(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "owners") // on the disk: one in memory cannot before Linux 6.3
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := TryOwners(dir); err != nil {
		t.Errorf("%s: %v", fileSystem(dir), err)
	}
	over := filepath.Join(dir, "over")
	for _, sub := range []string{"low", "up", "work", "over"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + dir + "/low,upperdir=" + dir + "/up,workdir=" + dir + "/work"
	if out, err := exec.Command("mount", "-t", "overlay", "-o", options, "none", over).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() { _ = exec.Command("umount", over).Run() }()
	if err := TryOwners(over); !errors.Is(err, errOneOwner) {
		t.Errorf("overlay: %v", err)
	}
	if got := fileSystem(over); got != "overlay" {
		t.Errorf("the overlay is %s", got)
	}
}
