package health

import (
	"sync"
	"time"
)

// late is by how much a timer may be late on a busy machine that nobody stopped.
const late = 5 * time.Millisecond

// Bound calls end after a time in which this process ran. A machine that stood still (paused, migrated, starved of its processor) finds all
// its deadlines over and the answers unread; the time that it was away is no server's fault. A timer that comes late says how long that
// was, and is put off by as much, together no longer than the time itself. Probes have no other deadline, so that no library keeps one of
// its own. A stop that comes while end runs waits for it: end must not wait for who stops.
func Bound(timeout time.Duration, end func()) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	due, grace := time.Now().Add(timeout), timeout
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(timeout, func() {
		mu.Lock()
		defer mu.Unlock()
		away := min(time.Since(due), grace)
		if away < late {
			end()
			return
		}
		grace -= away
		due = time.Now().Add(away)
		timer.Reset(away)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}
