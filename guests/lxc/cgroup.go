package lxc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// cgroupRoot is where the unified hierarchy is on every blade that has one.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupsOf are the groups that the configuration names: the monitor's and the container's.
func cgroupsOf(name policy.GuestName) []string {
	return []string{
		filepath.Join(cgroupRoot, "bladenet/monitor", string(name)),
		filepath.Join(cgroupRoot, "bladenet/guest", string(name)),
	}
}

// clear ends what a container that does not run left behind: its processes, if the monitor died without them, and its groups. liblxc
// refuses to start into a group that exists.
func clear(ctx context.Context, name policy.GuestName) error {
	for _, dir := range cgroupsOf(name) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("end what is left in %s: %w", dir, err)
		}
		for {
			err := removeGroups(dir)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("remove control group: %w", err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("end what is left in %s: %w", dir, context.Cause(ctx))
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// removeGroups removes a group and those below it, deepest first. EBUSY means that a process is still in one.
func removeGroups(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "rmdir", Path: d, Err: err}
		}
	}
	return nil
}

// populated says whether processes live in the container's group.
func populated(name policy.GuestName) bool {
	text, err := os.ReadFile(filepath.Join(cgroupsOf(name)[1], "cgroup.events"))
	return err == nil && strings.Contains(string(text), "populated 1")
}
