package lxc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/lxc/config"
)

// rootArguments tell the helper what a container's root is put together of, in the order of root.h, and make the points where its
// monitor mounts it.
func (d *Driver) rootArguments(s guests.Spec, img image.Image) ([]string, error) {
	volumes := ""
	if len(s.Volumes) > 0 {
		volumes = d.Volumes.Guest(s.Name)
	}
	var base uint64
	if !s.Privileged {
		own, err := readIDs(filepath.Join(d.dir(s.Name), idsFile))
		if err != nil {
			return nil, err
		}
		base = own.first
		for _, point := range []string{config.RootPoint, config.VolumesPoint} {
			if err := os.MkdirAll(point, 0o755); err != nil {
				return nil, err
			}
		}
	}
	return []string{fmt.Sprint(base), img.Rootfs(), config.RootPoint, volumes, config.VolumesPoint, d.Namespace(s.Name)}, nil
}

// passable lets containers' roots, who are nobody here, pass through the driver's folder and the agent's above it, as liblxc wants; a
// container's own folder stays closed to them.
func (d *Driver) passable() error {
	for _, path := range []string{filepath.Dir(d.Dir), d.Dir} {
		info, err := os.Stat(path)
		if err == nil && info.Mode().Perm()&0o011 != 0o011 {
			err = os.Chmod(path, info.Mode().Perm()|0o011)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// owned says whether a file belongs to that user and group, or is not there.
func owned(path string, id uint32) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return errors.Is(err, unix.ENOENT) || err == nil && st.Uid == id && st.Gid == id
}

// makeFolders makes what a container's root is put together of. The delta is what the container sees as /, so it is its root's.
func makeFolders(dir string, base uint32) error {
	folders := []string{"delta"}
	if base != 0 {
		folders = append(folders, "work", "lower")
	}
	for _, f := range folders {
		if err := os.MkdirAll(filepath.Join(dir, f), 0o755); err != nil {
			return err
		}
	}
	return os.Lchown(filepath.Join(dir, "delta"), int(base), int(base))
}
