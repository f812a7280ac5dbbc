package director

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bladenet/bladenet/guests/channel"
)

// Store is the file that keeps the last good state over a reboot, so that a director comes up before its blade says anything.
type Store struct{ Path string }

// Load returns the state that was saved last, and false when none was.
func (s Store) Load() (channel.Apply, bool, error) {
	data, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return channel.Apply{}, false, nil
	}
	if err != nil {
		return channel.Apply{}, false, fmt.Errorf("load state: %w", err)
	}
	var state channel.Apply
	if err := json.Unmarshal(data, &state); err != nil {
		return channel.Apply{}, false, fmt.Errorf("load state %s: %w", s.Path, err)
	}
	return state, true, nil
}

// Save replaces the file in one step: after a crash or a power cut at any moment the old or the new state is there, whole.
func (s Store) Save(state channel.Apply) error {
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	dir := filepath.Dir(s.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := s.replace(dir, data); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	// The new name is only durable once its directory is.
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

func (s Store) replace(dir string, data []byte) error {
	f, err := os.CreateTemp(dir, filepath.Base(s.Path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), s.Path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
