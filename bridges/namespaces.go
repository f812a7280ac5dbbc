package bridges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// createNamespace makes a guest's network namespace and mounts it on its file, over what an interrupted creation left.
type createNamespace struct{ guest policy.GuestName }

func (c createNamespace) apply(ctx context.Context, s *session) error {
	if err := s.ensureFolder(ctx); err != nil {
		return err
	}
	path := s.k.path(string(c.guest))
	if err := s.removeNamespace(ctx, path); err != nil {
		return err
	}
	if err := s.change(ctx, "create file"); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.change(ctx, "mount namespace"); err != nil {
		return err
	}
	return onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount namespace on %s: %w", path, err)
		}
		return nil
	})
}

// ensureFolder makes the folder a private mount point of its own: then the namespaces' mounts spread into no other mount namespace, where
// they would keep a deleted guest's namespace alive.
func (s *session) ensureFolder(ctx context.Context) error {
	folder := s.k.folder
	if err := s.change(ctx, "create folder"); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	mounted, err := isMountPoint(folder)
	if err != nil {
		return err
	}
	if !mounted {
		if err := s.change(ctx, "mount folder"); err != nil {
			return err
		}
		if err := unix.Mount(folder, folder, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on itself: %w", folder, err)
		}
	}
	if err := unix.Mount("", folder, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mount %s private: %w", folder, err)
	}
	return nil
}

func isMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// deleteNamespace takes a guest's network namespace off its file and removes the file. The namespace itself goes with its last process.
type deleteNamespace struct{ guest policy.GuestName }

func (c deleteNamespace) apply(ctx context.Context, s *session) error {
	return s.removeNamespace(ctx, s.k.path(string(c.guest)))
}

func (s *session) removeNamespace(ctx context.Context, path string) error {
	if err := s.change(ctx, "unmount namespace"); err != nil {
		return err
	}
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	// EINVAL: nothing is mounted there.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := s.change(ctx, "remove file"); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
