package hostagent

import (
	"fmt"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy/plan"
)

// A fight begins when an object is repaired fightRepairs times within fightWithin. From then on its repairs are spaced, twice as far
// after each, and the fight is over when nobody has touched the object for fightQuiet after a repair.
const (
	fightRepairs = 5
	fightWithin  = 30 * time.Second
	fightQuiet   = time.Minute
	firstSpace   = 2 * time.Second
	lastSpace    = time.Minute
	// The filter is never left open for long, whoever opens it: its repairs are spaced this far and no further.
	filterSpace = 500 * time.Millisecond
)

// fights tells an object that a stranger changes again and again from one that was changed once, and spaces its repairs.
type fights struct {
	mu   sync.Mutex
	each map[string]*fight // by key
}

// fight is the repairs of one object.
type fight struct {
	step    plan.Step
	repairs []time.Time // the last fightRepairs
	count   int
	told    int       // count when the journal was told last
	began   time.Time // zero: it is none yet
	space   time.Duration
	until   time.Time // no repair before
}

// key tells objects apart: the insides of two guests have objects of the same name.
func key(s plan.Step) string { return s.Subsystem + " " + s.Guest + " " + s.Object }

// verdict is what a repair means.
type verdict int

const (
	once    verdict = iota // somebody changed something
	begins                 // that was once too often
	goesOn                 // the fight goes on
	goesOnN                // it goes on, and the number of repairs has doubled since that was said last
)

// repaired notes that drift of an object was repaired, and returns what that means and how often it has been now.
func (f *fights) repaired(s plan.Step, now time.Time) (verdict, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.each[key(s)]
	if x == nil {
		x = &fight{step: s}
		f.each[key(s)] = x
	}
	x.count++
	x.repairs = append(x.repairs, now)
	if len(x.repairs) > fightRepairs {
		x.repairs = x.repairs[1:]
	}
	is := once
	switch {
	case !x.began.IsZero():
		x.space = min(2*x.space, lastSpace)
		is = goesOn
		if x.count >= 2*x.told {
			x.told, is = x.count, goesOnN
		}
	case len(x.repairs) == fightRepairs && now.Sub(x.repairs[0]) <= fightWithin:
		x.began, x.space, x.told, is = now, firstSpace, x.count, begins
	default:
		return once, x.count
	}
	if s.Subsystem == "filter" {
		x.space = filterSpace
	}
	x.until = now.Add(x.space)
	return is, x.count
}

// held says why an object is not repaired now; empty: it may be.
func (f *fights) held(s plan.Step, now time.Time) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.each[key(s)]
	if x == nil || !x.until.After(now) {
		return ""
	}
	return fmt.Sprintf("somebody else changes it again and again (repaired %d times since %s): next repair at %s",
		x.count, x.repairs[0].Format(time.TimeOnly), x.until.Format(time.TimeOnly))
}

// on says whether an object is fought over.
func (f *fights) on(s plan.Step) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.each[key(s)]
	return x != nil && !x.began.IsZero()
}

// over forgets the fights that have ended by now, and what was no fight, and returns the former.
func (f *fights) over(now time.Time) []plan.Step {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ended []plan.Step
	for k, x := range f.each {
		last := x.repairs[len(x.repairs)-1]
		if now.Sub(last) < max(fightQuiet, 2*x.space) {
			continue
		}
		if !x.began.IsZero() {
			ended = append(ended, x.step)
		}
		delete(f.each, k)
	}
	return ended
}

// next is how long it is until a held object may be repaired; an hour when none is held.
func (f *fights) next(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	wait := time.Hour
	for _, x := range f.each {
		if d := x.until.Sub(now); d > 0 {
			wait = min(wait, d)
		}
	}
	return wait
}

// reset gives every object its chances anew, as a revision does that comes into force.
func (f *fights) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.each)
}

// count is how many fights are on.
func (f *fights) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, x := range f.each {
		if !x.began.IsZero() {
			n++
		}
	}
	return n
}

// pace spaces passes that events ask for: the first follows its event closely, a stream of events finds each pass further from the one
// before, so that whoever makes events without end costs little.
type pace struct {
	last time.Time
	wait time.Duration
}

// Bounds of a pace. A blade at rest answers an event after the first; the last is well below the second that a repair may take.
const (
	firstWait = 30 * time.Millisecond
	lastWait  = 500 * time.Millisecond
	atRest    = 3 * time.Second
)

// next returns how long to wait before a pass that an event asks for now.
func (p *pace) next(now time.Time) time.Duration {
	if now.Sub(p.last) > atRest {
		p.wait = firstWait
	} else {
		p.wait = min(p.wait*3/2, lastWait)
	}
	p.last = now
	return p.wait
}
