package hostagent

import (
	"fmt"
	"sync"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// A spare real server runs while a director of its blade says that a service of it has no quorum without it. It goes off when that has been
// over for a while, so that what comes and goes does not make it come and go, and when its connections have ended, which is not waited
// for without end.
const (
	spareFor   = 5 * time.Minute
	spareDrain = 15 * time.Minute
	spareLook  = 2 * helperPoll // how soon it is looked at again whether its connections have ended
)

// spareOff is why a spare one is off, to people.
const spareOff = "a spare one: the others of its services suffice"

// spares remembers of each spare real server of the blade what the directors said.
type spares struct {
	mu   sync.Mutex
	each map[policy.GuestName]spare
}

type spare struct {
	off    bool
	wanted time.Time // when it was wanted last
	calm   bool      // it runs, and nobody wants it any more
}

// call is what the directors of a blade say of a spare one.
type call struct {
	heard bool               // a director that balances it answers
	short policy.ServiceName // a service that wants it; empty: none
	left  int                // established connections that it has; less than none: nobody has counted
}

// holdSpares adds the spare real servers that are to be off now to those that must not start. What it decides is remembered by a pass that
// acts on it.
func (a *Agent) holdSpares(p *pass, have guests.State, now time.Time) {
	running := map[policy.GuestName]bool{}
	for _, o := range have.Guests {
		running[o.Name] = o.Phase == guests.Running || o.Phase == guests.Paused
	}
	next := map[policy.GuestName]spare{}
	for _, g := range p.blade.Guests {
		if !g.Spare {
			continue
		}
		said := a.call(p.blade.Guests, g)
		was, known := a.spares.get(g.Name)
		if !known {
			was = spare{off: !running[g.Name], wanted: now} // an agent that has just begun does not know since when
		}
		is := was.next(said, now)
		if _, stopped := have.Held[g.Name]; is.off && !stopped {
			have.Held[g.Name] = guests.Hold{Off: true, Reason: spareOff}
		}
		if p.apply && was.off && !is.off {
			a.record(api.Entry{Kind: api.GuestIs, Guest: string(g.Name), Message: fmt.Sprintf("a spare one is wanted: %s has no quorum without it", said.short)})
		}
		if p.apply && is.calm && now.Sub(is.wanted) >= spareFor {
			a.helpers.count()
		}
		next[g.Name] = is
	}
	if p.apply {
		a.spares.set(next)
	}
}

// call asks what the directors of this blade said last.
func (a *Agent) call(blade []policy.Guest, g policy.Guest) call {
	said := call{left: -1}
	for _, d := range blade {
		if d.Balancer == nil || !balances(d.Balancer, g.Name) {
			continue
		}
		answer, ok := a.helpers.last(d.Name)
		if !ok || !answer.inForce || answer.status.Error != "" {
			continue
		}
		said.heard = true
		for _, s := range answer.status.Services {
			for _, x := range s.Destinations {
				if x.Guest == g.Name && s.Short {
					said.short = s.Service
				}
			}
		}
		if time.Since(answer.when) <= 2*spareLook {
			said.left = max(said.left, 0) + established(answer.counted.Services, g.Name)
		}
	}
	return said
}

// next is the spare one after what the directors say now. While none of them says anything it is left as it is.
func (s spare) next(said call, now time.Time) spare {
	quiet := now.Sub(s.wanted)
	switch {
	case !said.heard:
	case said.short != "":
		return spare{wanted: now}
	case s.off:
	case quiet >= spareFor+spareDrain, quiet >= spareFor && said.left == 0:
		return spare{off: true, wanted: s.wanted}
	default:
		s.calm = true
	}
	return s
}

func (s *spares) get(name policy.GuestName) (spare, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.each[name]
	return x, ok
}

func (s *spares) set(each map[policy.GuestName]spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each = each
}

// due is how long it is until one may go off; an hour when none may.
func (s *spares) due(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := time.Hour
	for _, x := range s.each {
		if x.calm {
			first = min(first, max(spareFor-now.Sub(x.wanted), spareLook))
		}
	}
	return first
}

// reason is why a spare one is off; empty: it is not, or no spare one.
func (s *spares) reason(name policy.GuestName) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.each[name].off {
		return spareOff
	}
	return ""
}
