package hostagent

import (
	"fmt"
	"sync"
	"time"
)

// standstill is how long one stage, or one guest's step, may take before the loop is taken for stuck.
const standstill = 5 * time.Minute

// health is the loop's pulse. The zero value is ready.
type health struct {
	mu    sync.Mutex
	last  time.Time // zero while it rests
	where string
	once  sync.Once
}

// beat notes that the loop goes on, and where it is.
func (h *health) beat(where string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.where = time.Now(), where
}

// rest notes that the loop waits for something to do: it may wait for long.
func (h *health) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Time{}
}

// ready calls tell the first time.
func (h *health) ready(tell func()) {
	h.once.Do(func() {
		if tell != nil {
			tell()
		}
	})
}

// Alive says whether the loop goes on: nil, or where it stands still. It says nothing of the blade.
func (a *Agent) Alive() error {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	if still := time.Since(a.health.last); !a.health.last.IsZero() && still > standstill {
		return fmt.Errorf("the loop has stood still for %s: %s", still.Round(time.Second), a.health.where)
	}
	return nil
}
