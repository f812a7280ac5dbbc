package hostagent

import (
	"fmt"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// A director that runs and does not answer its blade is hung after Config.Silence, and after as many questions without an answer: an agent
// that was halted itself has asked nothing meanwhile. Each restart that does not help doubles the time until the next one; a director that
// answered for a while begins anew.
const (
	defaultSilence = 2 * time.Minute
	longestSilence = time.Hour
	hungQuestions  = 5
	wellAgain      = 10 * time.Minute
)

// silence is what is known of a director that does not answer.
type silence struct {
	questions int       // without an answer, in a row
	began     time.Time // of the conversation
	restarts  int       // that did not help
	restarted time.Time // last
}

// hung returns the running directors that do not answer any more, each with the reason to start it again. One that is paused, by an operator
// (virsh suspend) or by the hypervisor, is not hung, and gets its time to answer anew when it goes on.
func (d *helpers) hung(have []guests.Observed, now time.Time) map[policy.GuestName]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[policy.GuestName]string{}
	for _, o := range have {
		c, ok := d.each[o.Name]
		if !ok || o.Driver != c.guest.Driver {
			continue
		}
		if o.Phase == guests.Paused {
			c.silence.questions, c.silence.began = 0, now
		}
		if o.Phase != guests.Running {
			continue
		}
		if quiet, hung := c.hung(d.patience, o.Since, now); hung {
			out[o.Name] = fmt.Sprintf("its helper has not answered for %v", quiet.Round(time.Second))
		}
	}
	return out
}

// hung says whether a director that runs since a moment is hung, and for how long it has been silent.
func (c *conversation) hung(patience time.Duration, since, now time.Time) (time.Duration, bool) {
	for _, t := range []time.Time{c.seen, c.silence.began, c.silence.restarted} {
		if t.After(since) {
			since = t
		}
	}
	quiet := now.Sub(since)
	return quiet, c.err != nil && c.silence.questions >= hungQuestions && quiet >= min(patience<<min(c.silence.restarts, 10), max(longestSilence, patience))
}

// restarted notes that a hung director was stopped to be started again.
func (d *helpers) restarted(name policy.GuestName, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.each[name]
	if !ok {
		return
	}
	if c.seen.Sub(c.silence.restarted) > wellAgain {
		c.silence.restarts = 0
	}
	c.silence = silence{began: c.silence.began, restarts: c.silence.restarts + 1, restarted: now}
}
