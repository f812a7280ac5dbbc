package journal

import (
	"sync"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

// Keep is how many entries are held for readers.
const Keep = 1000

// Journal is a bounded list of entries whose numbers count up, over restarts too. Use Open.
type Journal struct {
	mu      sync.Mutex
	entries []api.Entry // oldest first, Keep at most
	last    uint64
	more    chan struct{} // closed at the next entry
	disk    *disk
}

// Open returns the journal in dir, which is made if it is not there, with the newest entries of earlier runs. The error says why
// nothing is kept on disk; the journal is good without it.
func Open(dir string) (*Journal, error) {
	j := &Journal{more: make(chan struct{})}
	d, entries, err := openDisk(dir)
	j.entries = entries[max(0, len(entries)-Keep):]
	for _, e := range entries {
		j.last = max(j.last, e.Number)
	}
	if err != nil {
		return j, err
	}
	j.disk = d
	return j, nil
}

// Add records an entry: its number is set, and its time unless it has one. The error is the disk's; the entry is in memory anyway. The
// disk's error is returned once, until it takes entries again.
func (j *Journal) Add(e api.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	e.Number = j.last
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if len(j.entries) == Keep {
		j.entries = append(j.entries[:0], j.entries[1:]...)
	}
	j.entries = append(j.entries, e)
	close(j.more)
	j.more = make(chan struct{})
	if j.disk == nil {
		return nil
	}
	return j.disk.add(e)
}

// After returns the entries whose number is above number, oldest first, and a channel that is closed when there is another one. What
// has left the journal is missing: the numbers show it.
func (j *Journal) After(number uint64) ([]api.Entry, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := len(j.entries)
	for i > 0 && j.entries[i-1].Number > number {
		i--
	}
	return append([]api.Entry{}, j.entries[i:]...), j.more
}

// Close ends the record on disk.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.disk == nil {
		return nil
	}
	err := j.disk.close()
	j.disk = nil
	return err
}
