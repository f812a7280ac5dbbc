package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// errOneOwner is met when a file system cannot show its files with other owners.
var errOneOwner = errors.New("its files cannot be shown with other owners")

// owners tries whether images and volumes can be shown with the owners that a container has: without that its start fails.
func owners(_ context.Context, h Host) []finding {
	if h.Owners == nil {
		return nil
	}
	var out []finding
	for _, folder := range []string{h.Images, filepath.Join(h.State, "volumes")} {
		if folder == "volumes" || folder == "" || !errors.Is(h.Owners(nearest(folder)), errOneOwner) {
			continue
		}
		message := fmt.Sprintf("the file system of %s (%s) cannot show its files with other owners: containers do not start from it", folder, fileSystem(nearest(folder)))
		const remedy = "put it on ext4, xfs or btrfs (bladed --images, --state); or privileged: true in each container's entry, whose root is then root here"
		if slices.ContainsFunc(h.Blade.Guests, func(g policy.Guest) bool { return g.Driver == policy.DriverLXC && !g.Privileged }) {
			out = append(out, wrong(message, remedy))
		} else {
			out = append(out, doubtful(message, remedy))
		}
	}
	return out
}

// TryOwners makes an idmapped mount of a folder (mount_setattr(2)) that nobody sees, and forgets it. What is not that the file system
// cannot, no privilege above all, says nothing.
func TryOwners(folder string) error {
	space, end, err := userNamespace()
	if err != nil {
		return err
	}
	defer end()
	defer space.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s: %w", folder, err)
	}
	defer unix.Close(tree)
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(space.Fd())})
	if errors.Is(err, unix.EINVAL) {
		return errOneOwner
	}
	return err
}

// userNamespace makes one with other owners; it lasts until end is called.
func userNamespace() (space *os.File, end func(), err error) {
	keep, give, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer keep.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 30, Size: 1 << 16}}
	cmd := exec.Command("/bin/cat") // until its input ends
	cmd.Stdin = keep
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		give.Close()
		return nil, nil, fmt.Errorf("make a user namespace: %w", err)
	}
	end = func() {
		give.Close()
		_ = cmd.Wait()
	}
	if space, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)); err != nil {
		end()
		return nil, nil, err
	}
	return space, end, nil
}

// fileSystem names the kind of a folder's file system, as far as those go that are met here (linux/magic.h).
func fileSystem(folder string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return err.Error()
	}
	names := map[int64]string{
		unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.TMPFS_MAGIC: "tmpfs", unix.NFS_SUPER_MAGIC: "nfs", unix.V9FS_MAGIC: "9p",
		unix.FUSE_SUPER_MAGIC: "fuse or virtiofs", unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	}
	if name, ok := names[s.Type]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", s.Type)
}
