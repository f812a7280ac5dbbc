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
	v := Verdict{Rise: c.Rise, Fall: c.Fall}
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
		was := v.State
		r := told
		switch {
		case v.Add(err == nil):
			r = Result{ID: c.ID, State: v.State, Since: began, Took: time.Since(began), Back: was == Down && v.State == Up, Answer: answer}
			if err != nil {
				r.Reason = err.Error()
			}
		case err == nil && v.State == Up && answer != told.Answer:
			r.Answer = answer
		default:
			if v.State == Unknown { // a director that has just begun waits for the verdict
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
	defer Bound(c.Timeout, func() { cancel(errTimeout) })()
	answer, err := probe(ctx, c)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return Answer{}, timeoutError{c.Timeout, err}
	}
	return answer, err
}

var errTimeout = errors.New("timeout")

// timeoutError says in the reason how long was waited: the cause behind it differs from library to library.
type timeoutError struct {
	after time.Duration
	err   error
}

func (e timeoutError) Error() string { return "no answer within " + e.after.String() }
func (e timeoutError) Unwrap() error { return e.err }
