package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// FirstShare is the part of its interval after which a server is asked again that has failed and has no verdict yet.
const FirstShare = 4

// FirstWithin bounds the jitter of a check's first probe: a real server waits no longer for its place in the rotation.
const FirstWithin = time.Second

// Run keeps the checks of the last list received from sets running, each with probe, and sends what it finds to results. A
// check that is in the old and in the new list, unchanged, goes on undisturbed. Run returns when ctx has ended and every probe
// with it.
func Run(ctx context.Context, sets <-chan []policy.Check, results chan<- Result, probe Probe) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[string]runningCheck{}
	defer func() {
		for _, r := range running {
			r.cancel()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case checks := <-sets:
			wanted := map[string]policy.Check{}
			for _, c := range checks {
				wanted[c.ID] = c
			}
			for id, r := range running {
				if wanted[id] != r.check {
					r.cancel()
					delete(running, id)
				}
			}
			for id, c := range wanted {
				if _, ok := running[id]; ok {
					continue
				}
				cctx, cancel := context.WithCancel(ctx)
				running[id] = runningCheck{c, cancel}
				wg.Go(func() { watch(cctx, c, results, probe) })
			}
		}
	}
}

type runningCheck struct {
	check  policy.Check
	cancel context.CancelFunc
}

// watch probes one check, once every interval from begin to begin, so that a probe that begins late moves those after it: on a machine
// that stalls, two failures in a row are still an interval apart. A probe cannot outlast its interval, because the policy allows no
// timeout above it.
func watch(ctx context.Context, c policy.Check, results chan<- Result, probe Probe) {
	timer := time.NewTimer(rand.N(min(max(c.Interval, 1), FirstWithin)))
	defer timer.Stop()
	v := verdict{rise: c.Rise, fall: c.Fall}
	var told Result
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		timer.Reset(c.Interval)
		answer, err := once(ctx, c, probe)
		if ctx.Err() != nil {
			return
		}
		was := v.state
		r := told
		switch {
		case v.add(err == nil):
			r = Result{ID: c.ID, State: v.state, Since: began, Took: time.Since(began), Back: was == Down && v.state == Up, Answer: answer}
			if err != nil {
				r.Reason = err.Error()
			}
		case err == nil && v.state == Up && answer != told.Answer:
			r.Answer = answer
		default:
			if v.state == Unknown { // a director that has just begun waits for the verdict
				timer.Reset(time.Until(began.Add(c.Interval / FirstShare)))
			}
			continue
		}
		select {
		case results <- r:
			told = r
		case <-ctx.Done():
			return
		}
	}
}

func once(ctx context.Context, c policy.Check, probe Probe) (Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer bound(c.Timeout, func() { cancel(errTimeout) })()
	answer, err := probe(ctx, c)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return Answer{}, timeoutError{c.Timeout, err}
	}
	return answer, err
}

// late is by how much a timer may be late on a busy machine that nobody stopped.
const late = 5 * time.Millisecond

// bound calls end after a time in which this process ran. A machine that stood still (paused, migrated, starved of its processor) finds all
// its deadlines over and the answers unread; the time that it was away is no server's fault. A timer that comes late says how long that
// was, and is put off by as much, together no longer than the time itself. Probes have no other deadline, so that no library keeps one of
// its own.
func bound(timeout time.Duration, end func()) (stop func()) {
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

var errTimeout = errors.New("timeout")

// timeoutError says in the reason how long was waited: the cause behind it differs from library to library.
type timeoutError struct {
	after time.Duration
	err   error
}

func (e timeoutError) Error() string { return "no answer within " + e.after.String() }
func (e timeoutError) Unwrap() error { return e.err }

// verdict counts successes and failures in a row. The first success is a first verdict, a failure is one as often in a row as it takes later: a
// probe that is lost while a director boots must not have it announce without a server that is well.
type verdict struct {
	rise, fall int
	state      State
	run        int // probes in a row that speak against state
}

// add takes one probe's outcome and says whether the state changed by it.
func (v *verdict) add(ok bool) bool {
	says, need := Down, max(v.fall, 1)
	if ok {
		says, need = Up, max(v.rise, 1)
	}
	if v.state == says {
		v.run = 0
		return false
	}
	v.run++
	if v.run < need && (v.state != Unknown || !ok) {
		return false
	}
	v.state, v.run = says, 0
	return true
}
