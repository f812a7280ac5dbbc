package lxc

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/quota"
	"github.com/bladenet/bladenet/policy"
)

// bound holds a container's clone to the size that its definition says, or to none. Its files are a project of the file system's, whose number
// is the first of the container's ids: nobody else has it. Who mounted the kernel's overlay has no right to exceed quotas by it
// (ovl_fill_super of fs/overlayfs/super.c), so what the container writes is refused.
func (d *Driver) bound(s guests.Spec) error {
	if s.Disk == 0 {
		return d.unbound(s.Name)
	}
	dir := d.dir(s.Name)
	id, err := d.reserve(s.Name)
	if err != nil {
		return err
	}
	if err := quota.Limit(dir, id, s.Disk); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if have, err := quota.Project(dir); err == nil && have == id {
		return nil // and so is all that was made in it since
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir || !e.IsDir() && !e.Type().IsRegular() { // others take no room, and some cannot be opened without effect
			return err
		}
		return quota.Give(path, id)
	})
	if err == nil {
		err = quota.Give(dir, id) // last, because it says that the rest is done
	}
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

// unbound takes the bound away where there is one.
func (d *Driver) unbound(name policy.GuestName) error {
	dir := d.dir(name)
	own, err := readIDs(filepath.Join(dir, idsFile))
	if err != nil {
		return nil // a project has their number
	}
	if have, err := quota.Project(dir); err != nil || uint64(have) != own.first {
		return nil
	}
	if err := quota.Limit(dir, uint32(own.first), 0); err != nil && !errors.Is(err, quota.ErrNone) {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}
