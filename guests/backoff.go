package guests

import (
	"fmt"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Backoff spaces the starts of a guest that does not stay up: the first two follow at once, then 2 s, 4 s and so on up to five minutes lie
// between. A guest that stayed up for ten minutes is forgotten. The zero value is ready; it remembers nothing across the agent's restart.
type Backoff struct {
	mu    sync.Mutex
	tries map[policy.GuestName]tries
}

type tries struct {
	count int
	last  time.Time
}

const (
	firstDelay = 2 * time.Second
	longest    = 5 * time.Minute
	stable     = 10 * time.Minute
)

// Record takes note of a step that was done, or tried, at a time. Only starts count.
func (b *Backoff) Record(s Step, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s.Verb {
	case plan.Start:
		if b.tries == nil {
			b.tries = map[policy.GuestName]tries{}
		}
		t := b.tries[s.Name]
		if at.Sub(t.last) > stable {
			t.count = 0
		}
		b.tries[s.Name] = tries{t.count + 1, at}
	case plan.Stop, plan.Delete, plan.Update:
		delete(b.tries, s.Name) // somebody changed it: it gets its chances anew
	}
}

// Hold adds to held the guests whose next start lies after now.
func (b *Backoff) Hold(held map[policy.GuestName]Hold, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, t := range b.tries {
		if _, already := held[name]; already || t.count < 2 {
			continue
		}
		delay := longest
		if shift := t.count - 2; shift < 8 {
			delay = min(longest, firstDelay<<shift)
		}
		if until := t.last.Add(delay); until.After(now) {
			held[name] = Hold{Until: until, Reason: fmt.Sprintf("it was started %d times and did not stay up", t.count)}
		}
	}
}
