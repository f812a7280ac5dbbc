package hostagent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/hostagent/alert"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// How often the drops of the ports' limits are read, and how long a port must lose nothing to be within its limits again.
const (
	limitsLook  = 10 * time.Second
	limitsQuiet = time.Minute
)

// limitReasons are the drops that say that a guest takes more of the blade than is its share.
var limitReasons = []filter.Reason{filter.ConnLimit, filter.Storm}

// limits remembers which ports lose packets to their limits. The zero value is ready.
type limits struct {
	mu    sync.Mutex
	drops map[excess]uint64
	until map[excess]time.Time
}

// excess is a port and the limit that it exceeds.
type excess struct {
	port   string
	reason filter.Reason
}

// note compares counters with those of the call before. At the first call, and for a counter that began anew, nothing is exceeded.
func (l *limits) note(c nft.Counters, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	drops := map[excess]uint64{}
	for port, reasons := range c.Ports {
		for _, reason := range limitReasons {
			x := excess{port, reason}
			drops[x] = reasons[reason].Packets
			if before, known := l.drops[x]; l.drops != nil && drops[x] > before && (known || drops[x] > 0) {
				if l.until == nil {
					l.until = map[excess]time.Time{}
				}
				l.until[x] = now.Add(limitsQuiet)
			}
		}
	}
	l.drops = drops
	maps.DeleteFunc(l.until, func(_ excess, t time.Time) bool { return !now.Before(t) })
}

// exceeded lists what is beyond its limits, by port.
func (l *limits) exceeded() []excess {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Keys(l.until), func(a, b excess) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.reason, b.reason))
	})
}

// watchLimits reads the counters until ctx ends.
func (a *Agent) watchLimits(ctx context.Context) {
	for ctx.Err() == nil {
		if c, err := a.cfg.Filter.Counters(ctx); err == nil { // status says so when they cannot be read
			a.limits.note(c, time.Now())
		}
		sleep(ctx, limitsLook)
	}
}

// limitAlerts names the guests whose ports are beyond their limits.
func limitAlerts(list []excess, guests []policy.Guest, site policy.SiteName) []alert.Alert {
	var out []alert.Alert
	for _, x := range list {
		for _, g := range guests {
			if slices.ContainsFunc(g.Ports, func(p policy.Port) bool { return p.Name == x.port }) {
				out = append(out, alert.Alert{Kind: alert.Limited, Guest: g.Name, Site: site, Object: "port " + x.port, Reason: string(x.reason)})
			}
		}
	}
	return out
}
