package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bladenet/bladenet/hostagent/api"
)

// Two files hold the record: entries are appended to the newer one, JSON a line; when it is full it takes the place of the older one.
const (
	newer    = "events.jsonl"
	older    = "events.1.jsonl"
	fullAt   = 1 << 20
	longLine = 64 << 10
)

// disk is the record on disk. Nothing is synced: an entry that a power cut takes is worth less than a wait for the disk at each.
type disk struct {
	dir    string
	file   *os.File
	size   int64
	failed bool // the last write failed, and was told
}

// openDisk opens the record in dir and reads what is there. Lines that are damaged, as a crash or a full disk leaves them, are
// passed over.
func openDisk(dir string) (*disk, []api.Entry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	var entries []api.Entry
	for _, name := range []string{older, newer} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, entries, fmt.Errorf("open journal: %w", err)
		}
		entries = append(entries, decode(data)...)
	}
	d := &disk{dir: dir}
	if err := d.open(); err != nil {
		return nil, entries, err
	}
	return d, entries, nil
}

func decode(data []byte) []api.Entry {
	var out []api.Entry
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, longLine)
	for lines.Scan() {
		var e api.Entry
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Number > 0 {
			out = append(out, e)
		}
	}
	return out
}

func (d *disk) open() error {
	f, err := os.OpenFile(filepath.Join(d.dir, newer), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
	}
	d.file, d.size = f, info.Size()
	end := make([]byte, 1)
	if d.size > 0 {
		if _, err := f.ReadAt(end, d.size-1); err == nil && end[0] != '\n' {
			return d.write([]byte("\n")) // a torn line must not take the next one with it
		}
	}
	return nil
}

func (d *disk) add(e api.Entry) error {
	line, err := json.Marshal(e)
	if err == nil && len(line) < longLine-1 {
		err = d.write(append(line, '\n'))
	}
	told := d.failed
	d.failed = err != nil
	if err == nil || told {
		return nil
	}
	return fmt.Errorf("write journal: %w", err)
}

func (d *disk) write(line []byte) error {
	if err := d.whole(); err != nil {
		return err
	}
	if d.size+int64(len(line)) > fullAt {
		if err := d.turn(); err != nil {
			return err
		}
	}
	n, err := d.file.Write(line)
	d.size += int64(n)
	if err != nil && n > 0 {
		_ = d.file.Truncate(d.size - int64(n)) // no half line; if that fails too, reading passes over it
		d.size -= int64(n)
	}
	return err
}

// whole begins the record anew where somebody has taken its file or folder away: entries must not go where nobody can read them.
func (d *disk) whole() error {
	now, err := os.Stat(filepath.Join(d.dir, newer))
	if err == nil {
		var ours os.FileInfo
		if ours, err = d.file.Stat(); err == nil && os.SameFile(now, ours) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	old := d.file
	if err := d.open(); err != nil {
		return err
	}
	return old.Close()
}

// turn begins a new file.
func (d *disk) turn() error {
	if err := os.Rename(filepath.Join(d.dir, newer), filepath.Join(d.dir, older)); err != nil {
		return err
	}
	if err := d.file.Close(); err != nil {
		return err
	}
	return d.open()
}

func (d *disk) close() error { return d.file.Close() }
