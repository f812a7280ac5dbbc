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

// What stays on disk: at most Keep revisions and KeepBytes bytes of them. Trim removes older ones; the newest and the one before it
// always stay.
const (
	Keep      = 50
	KeepBytes = 256 << 20
)

// Store is a folder with one file per revision: N.json.
type Store struct{ dir string }

// Revision is one checked set of policy files. It is signed off once Trial is nil and Failed is empty.
type Revision struct {
	Number int           `json:"number"`
	Time   time.Time     `json:"time"`
	Note   string        `json:"note,omitempty"`
	Trial  *Trial        `json:"trial,omitempty"`  // not signed off yet
	Failed string        `json:"failed,omitempty"` // why the blade returned from it
	Files  []policy.File `json:"files"`
}

// Trial is what a revision must still pass. It stands in the revision's own file, so that one rename decides it.
type Trial struct {
	Back     int           `json:"back"`              // revision to return to
	Tries    int           `json:"tries,omitempty"`   // how often the agent ended while the revision was applied
	Verified bool          `json:"verified"`          // the blade was observed to be as it says
	Window   time.Duration `json:"window,omitempty"`  // somebody must confirm within it, in nanoseconds; 0: nobody must
	Deadline time.Time     `json:"deadline,omitzero"` // end of the window
}

// Left is how long the window is still open at a time: 0 when it is over. A clock that was set back does not widen it.
func (t Trial) Left(now time.Time) time.Duration {
	return min(max(t.Deadline.Sub(now), 0), t.Window)
}

// Open returns the store in dir, which is made if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open revisions: %w", err)
	}
	if err := Sweep(dir); err != nil {
		return nil, fmt.Errorf("open revisions: %w", err)
	}
	return &Store{dir: dir}, nil
}

// At returns the store in dir to read, as it is there.
func At(dir string) *Store { return &Store{dir: dir} }

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
	return r, nil
}

// Update writes a revision that is there anew, as a trial that ends does.
func (s *Store) Update(r Revision) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = WriteFile(s.path(r.Number), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("update revision %d: %w", r.Number, err)
	}
	return nil
}

// Restore writes a revision, and the store's folder, where it is not there any more. lost says that it was not.
func (s *Store) Restore(r Revision) (lost bool, err error) {
	if _, err := os.Stat(s.path(r.Number)); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return true, fmt.Errorf("restore revision %d: %w", r.Number, err)
	}
	return true, s.Update(r)
}

// Trim removes the oldest revisions beyond Keep and KeepBytes.
func (s *Store) Trim() error {
	numbers, err := s.Numbers()
	if err != nil {
		return err
	}
	const always = 2
	kept, total := 0, int64(0)
	for _, n := range slices.Backward(numbers) {
		info, err := os.Stat(s.path(n))
		if err != nil {
			continue
		}
		if total += info.Size(); kept < always || kept < Keep && total <= KeepBytes {
			kept++
			continue
		}
		if err := os.Remove(s.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove revision %d: %w", n, err)
		}
	}
	return nil
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

// unfinished is in the name of each file that WriteFile has not renamed yet, and in no other.
const unfinished = ".bladenet-new-"

// Sweep removes what WriteFile left in a folder when its process was killed.
func Sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".*"+unfinished+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// WriteFile writes data so that after a crash the file is either as before or whole: a temporary file beside it, synced,
// renamed over it, and the folder synced.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+unfinished+"*")
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
