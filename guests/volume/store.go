package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Store is the folder of a blade's volumes: <dir>/<guest>/<volume>. The blade's users cannot pass through it: what a guest's root writes
// in a volume is root's on the disk.
type Store struct{ Dir string }

// Guest is the folder of one guest's volumes. Guests pass through it to their own volumes and see nothing of it.
func (s Store) Guest(guest policy.GuestName) string { return filepath.Join(s.Dir, string(guest)) }

// Path is where a volume is.
func (s Store) Path(guest policy.GuestName, name policy.VolumeName) string {
	return filepath.Join(s.Guest(guest), string(name))
}

// Make makes a volume unless it is there, with the owner, mode and content of the folder that a tree has at the volume's place; where
// the tree has none, it is empty and root's. An interrupted call leaves no volume.
func (s Store) Make(guest policy.GuestName, v policy.Volume, tree string) error {
	if err := s.make(guest, v, tree); err != nil {
		return fmt.Errorf("make volume %s of %s: %w", v.Name, guest, err)
	}
	return nil
}

func (s Store) make(guest policy.GuestName, v policy.Volume, tree string) error {
	path := s.Path(guest, v.Name)
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir, mode := range map[string]fs.FileMode{s.Dir: 0o700, s.Guest(guest): 0o711} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil { // whatever the umask was, and whichever of them came first
			return err
		}
	}
	fresh := filepath.Join(s.Guest(guest), "."+string(v.Name))
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	if err := fill(fresh, tree, strings.TrimPrefix(v.Path, "/")); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	return os.Rename(fresh, path)
}

// Names lists a guest's volumes, whether or not a policy names them, by name.
func (s Store) Names(guest policy.GuestName) ([]policy.VolumeName, error) {
	entries, err := os.ReadDir(s.Guest(guest))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list volumes of %s: %w", guest, err)
	}
	var out []policy.VolumeName
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, policy.VolumeName(e.Name()))
		}
	}
	return out, nil
}

// Remove removes a guest's volumes with all that is in them. Nothing may use them.
func (s Store) Remove(guest policy.GuestName) error {
	if guest == "" || strings.ContainsAny(string(guest), "/.") {
		return fmt.Errorf("remove volumes of %q: not a guest's name", guest)
	}
	if err := os.RemoveAll(s.Guest(guest)); err != nil {
		return fmt.Errorf("remove volumes of %s: %w", guest, err)
	}
	return nil
}
