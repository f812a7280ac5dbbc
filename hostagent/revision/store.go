package revision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Keep is how many revisions stay on disk; older ones are removed when a new one is saved.
const Keep = 50

// Store is a folder with one file per revision: N.json.
type Store struct{ dir string }

// Revision is one checked set of policy files.
type Revision struct {
	Number int           `json:"number"`
	Time   time.Time     `json:"time"`
	Note   string        `json:"note,omitempty"`
	Files  []policy.File `json:"files"`
}

// Open returns the store in dir, which is made if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open revisions: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Save writes r under the next free number and returns it with that number. It is on disk when Save returns.
func (s *Store) Save(r Revision) (Revision, error) {
	numbers, err := s.Numbers()
	if err != nil {
		return Revision{}, err
	}
	r.Number = 1
	if n := len(numbers); n > 0 {
		r.Number = numbers[n-1] + 1
	}
	data, err := json.Marshal(r)
	if err != nil {
		return Revision{}, fmt.Errorf("save revision %d: %w", r.Number, err)
	}
	if err := WriteFile(s.path(r.Number), data, 0o600); err != nil {
		return Revision{}, fmt.Errorf("save revision %d: %w", r.Number, err)
	}
	for _, old := range numbers[:max(0, len(numbers)+1-Keep)] {
		if err := os.Remove(s.path(old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, fmt.Errorf("remove revision %d: %w", old, err)
		}
	}
	return r, nil
}

// Load reads one revision.
func (s *Store) Load(number int) (Revision, error) {
	data, err := os.ReadFile(s.path(number))
	if err != nil {
		return Revision{}, fmt.Errorf("load revision %d: %w", number, err)
	}
	var r Revision
	if err := json.Unmarshal(data, &r); err != nil {
		return Revision{}, fmt.Errorf("load revision %d: %w", number, err)
	}
	if r.Number != number {
		return Revision{}, fmt.Errorf("load revision %d: the file says it is revision %d", number, r.Number)
	}
	return r, nil
}

// Latest returns the newest revision that can be read, and false when there is none. A damaged file does not hide the good
// one before it: its error is returned beside the revision.
func (s *Store) Latest() (Revision, bool, error) {
	numbers, err := s.Numbers()
	if err != nil {
		return Revision{}, false, err
	}
	var damaged error
	for _, n := range slices.Backward(numbers) {
		r, err := s.Load(n)
		if err == nil {
			return r, true, damaged
		}
		damaged = errors.Join(damaged, err)
	}
	return Revision{}, false, damaged
}

// Numbers lists the revisions on disk, oldest first.
func (s *Store) Numbers() ([]int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list revisions: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != ".json" {
			continue
		}
		if n, err := strconv.Atoi(name[:len(name)-len(".json")]); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (s *Store) path(number int) string {
	return filepath.Join(s.dir, strconv.Itoa(number)+".json")
}

// WriteFile writes data so that after a crash the file is either as before or whole: a temporary file beside it, synced,
// renamed over it, and the folder synced.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
