package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Where the repository's programs lie in its share, and where commands find them. A share forgets what it has read of a file whenever
// the file is opened: to start a program from there takes an emulated machine seconds, and its guests stand still for as long.
const (
	builtPrograms = "/lab/src/bin"
	ownPrograms   = "/lab/bin"
)

var copying sync.Mutex

// copyPrograms brings the machine's own copies of the repository's programs up to date.
func copyPrograms(from, to string) error {
	copying.Lock()
	defer copying.Unlock()
	built, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a repository in which nothing is built yet
		return fmt.Errorf("copy programs: %w", err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("copy programs: %w", err)
	}
	for _, entry := range built {
		if err := copyProgram(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())); err != nil {
			return fmt.Errorf("copy programs: %w", err)
		}
	}
	return nil
}

// copyProgram replaces a copy that differs from its original in time or size. A running one keeps its file.
func copyProgram(from, to string) error {
	original, err := os.Stat(from)
	if err != nil {
		return err
	}
	if have, err := os.Stat(to); err == nil && have.Size() == original.Size() && have.ModTime().Equal(original.ModTime()) {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	next := to + ".next"
	file, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, source)
	err = errors.Join(err, file.Close(), os.Chtimes(next, original.ModTime(), original.ModTime()))
	if err == nil {
		err = os.Rename(next, to)
	}
	if err != nil {
		_ = os.Remove(next)
	}
	return err
}
