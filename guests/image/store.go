package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Store is a folder of images: <dir>/<name>-<digest>/ with image.json. Folders that start with a dot are builds under way.
type Store struct{ Dir string }

// ErrInUse is met when an image is removed that clones stand on.
var ErrInUse = errors.New("in use")

// Get returns the image of an identity.
func (s Store) Get(id string) (Image, error) {
	name, _, err := splitID(id)
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(s.Dir, id)
	text, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, fmt.Errorf("image %q is not in the store %s: bladectl image build %s", id, s.Dir, name)
	}
	if err != nil {
		return Image{}, fmt.Errorf("read image %s: %w", id, err)
	}
	var i Image
	if err := json.Unmarshal(text, &i); err != nil {
		return Image{}, fmt.Errorf("read image %s: %w", id, err)
	}
	if i.ID != id {
		return Image{}, fmt.Errorf("read image %s: image.json says %q", id, i.ID)
	}
	i.dir = dir
	return i, nil
}

// List returns every image of the store, by name, newest first. A store that does not exist is empty; a folder that is no image is skipped.
func (s Store) List() ([]Image, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Image
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if i, err := s.Get(e.Name()); err == nil { // what has no identity's name is none of ours
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// Latest returns the newest image of a name for a driver, or an error that says how to get one.
func (s Store) Latest(name string, driver policy.Driver) (Image, error) {
	images, err := s.List()
	if err != nil {
		return Image{}, err
	}
	other := policy.Driver("")
	for _, i := range images {
		if i.Name != name {
			continue
		}
		if i.Kind == driver {
			return i, nil
		}
		other = i.Kind
	}
	build := "bladectl image build " + name
	if driver == policy.DriverKVM { // a recipe for containers is one for machines too
		build = "bladectl image build --driver kvm " + name
	}
	if other != "" {
		return Image{}, fmt.Errorf("image %q is for %s guests, this one is %s: %s", name, other, driver, build)
	}
	return Image{}, fmt.Errorf("image %q is not in the store %s: %s", name, s.Dir, build)
}

// Resolve returns the identity of the newest image of a name, for a driver.
func (s Store) Resolve(name string, driver policy.Driver) (string, error) {
	i, err := s.Latest(name, driver)
	return i.ID, err
}

// Fits says why an image is of no use to guests of a role: what it runs by itself is a service or a director.
func (s Store) Fits(id string, role policy.Role) error {
	i, err := s.Get(id)
	switch {
	case err != nil:
		return err
	case role == policy.RoleRealServer && len(i.Command) == 0:
		return fmt.Errorf("image %q runs no service: it is for directors", i.Name)
	case role == policy.RoleDirector && len(i.Command) > 0:
		return fmt.Errorf("image %q runs a service: it is for real servers", i.Name)
	}
	return nil
}

// Remove deletes an image unless used names it; used maps an identity to the guests that stand on it (see Used).
func (s Store) Remove(id string, used map[string][]string) error {
	if _, _, err := splitID(id); err != nil {
		return err
	}
	if guests := used[id]; len(guests) > 0 {
		return fmt.Errorf("remove image %s: %w by %s", id, ErrInUse, strings.Join(guests, ", "))
	}
	dir := filepath.Join(s.Dir, id)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	// Renamed first: a removal that is interrupted leaves a folder that no longer counts as an image.
	gone := filepath.Join(s.Dir, ".remove-"+id)
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	if err := os.Rename(dir, gone); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove image %s: %w", id, err)
	}
	return nil
}

// Unneeded lists the images that nobody would miss: older builds on which no clone stands. The newest build of each name for each
// driver is what the next clone is made of.
func (s Store) Unneeded(used map[string][]string) ([]Image, error) {
	images, err := s.List()
	if err != nil {
		return nil, err
	}
	type build struct {
		name string
		kind policy.Driver
	}
	var out []Image
	newest := map[build]bool{}
	for _, i := range images { // newest first
		of := build{i.Name, i.Kind}
		if newest[of] && len(used[i.ID]) == 0 {
			out = append(out, i)
		}
		newest[of] = true
	}
	return out, nil
}

// MarkFile is the file in a guest's folder that holds the identity of the image below its clone.
const MarkFile = "image"

// Used reads the mark files of the guests in the drivers' folders: identity to guests, sorted.
func Used(dirs ...string) (map[string][]string, error) {
	used := map[string][]string{}
	for _, dir := range dirs {
		marks, err := filepath.Glob(filepath.Join(dir, "*", MarkFile))
		if err != nil {
			return nil, fmt.Errorf("look for guests in %s: %w", dir, err)
		}
		for _, m := range marks {
			id, err := os.ReadFile(m)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("look for guests in %s: %w", dir, err)
			}
			key := strings.TrimSpace(string(id))
			used[key] = append(used[key], filepath.Base(filepath.Dir(m)))
		}
	}
	for _, guests := range used {
		slices.Sort(guests)
	}
	return used, nil
}
