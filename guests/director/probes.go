package director

import (
	"context"
	"sync"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// probes counts what each check's probes did.
type probes struct {
	mu   sync.Mutex
	each map[string]probed // by the check's ID
}

type probed struct {
	took          time.Duration // of the last one
	ended, failed uint64
	passed        time.Time // when the last one began that found its server well
}

// count is a probe that is counted. One that was given up, because its check is not wanted any more, is not.
func (p *probes) count(probe health.Probe) health.Probe {
	return func(ctx context.Context, c policy.Check) (health.Answer, error) {
		began := time.Now()
		answer, err := probe(ctx, c)
		if ctx.Err() == context.Canceled {
			return answer, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		n := p.each[c.ID]
		n.took = time.Since(began)
		n.ended++
		if err != nil {
			n.failed++
		} else {
			n.passed = began
		}
		p.each[c.ID] = n
		return answer, err
	}
}

// passed is when the last probe of a check began that found its server well.
func (p *probes) passed(check string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.each[check].passed
}

// keep forgets checks that are gone.
func (p *probes) keep(checks []policy.Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := make(map[string]probed, len(checks))
	for _, c := range checks {
		if n, ok := p.each[c.ID]; ok {
			kept[c.ID] = n
		}
	}
	p.each = kept
}

func (p *probes) status(checks []policy.Check, h Health) []channel.ProbeStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []channel.ProbeStatus
	for _, c := range checks {
		n := p.each[c.ID]
		out = append(out, channel.ProbeStatus{ID: c.ID, Guest: c.Guest, Up: h[c.ID].State == health.Up, Took: n.took, Ended: n.ended, Failed: n.failed})
	}
	return out
}
