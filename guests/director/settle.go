package director

import (
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// settling holds the services that the policy has, each with the moment until which it waits for the first verdict on every
// real server, and with the zero time once it waits no more: a real server that joins later waits alone.
type settling map[ServiceKey]time.Time

// longestSettle bounds how long a service waits, whatever its checks' timeouts.
const longestSettle = time.Minute

// begin takes over a policy: services that it does not know wait, those that were served by the table as it was found do not.
func (s settling) begin(b policy.Balancer, served map[ServiceKey]bool, now time.Time) {
	patience := map[string]time.Duration{}
	for _, c := range b.Checks {
		patience[c.ID] = health.FirstWithin + max(c.Timeout, c.Interval/health.FirstShare)*time.Duration(max(c.Fall, 1))
	}
	stays := map[ServiceKey]bool{}
	for _, v := range b.Services {
		key := KeyOf(v)
		stays[key] = true
		if _, known := s[key]; known {
			continue
		}
		longest := time.Duration(0)
		for _, d := range v.Destinations {
			longest = max(longest, patience[d.Check])
		}
		s[key] = now.Add(min(longest, longestSettle))
		if served[key] {
			s[key] = time.Time{}
		}
	}
	for key := range s {
		if !stays[key] {
			delete(s, key)
		}
	}
}

// now returns the services that still wait.
func (s settling) now(b policy.Balancer, h Health, now time.Time) map[ServiceKey]bool {
	out := map[ServiceKey]bool{}
	for _, v := range b.Services {
		key := KeyOf(v)
		switch until := s[key]; {
		case until.IsZero():
		case now.Before(until) && unknown(v, h):
			out[key] = true
		default:
			s[key] = time.Time{}
		}
	}
	return out
}

// unknown says whether a real server that could take connections has no verdict yet. A spare one is off most of the time.
func unknown(v policy.VirtualService, h Health) bool {
	for _, d := range v.Destinations {
		if d.Check != "" && !d.Drained && !d.Spare && max(d.Weight, d.Remote) > 0 && h[d.Check].State == health.Unknown {
			return true
		}
	}
	return false
}
