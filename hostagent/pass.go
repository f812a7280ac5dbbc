package hostagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// pass is one walk over all stages for one wanted state.
type pass struct {
	blade  policy.Blade
	report func(api.Event) // may be nil
	apply  bool            // false: only plan

	only []string // names of stages; nil means all

	held   map[policy.GuestName]string // guests that go no further in this pass, and why
	closed string                      // why no port may join its bridge: the filter is not as wanted
	seen   *bridges.State              // the links as observed last; nil as soon as a stage has done anything
	found  *guests.State               // the guests, likewise, until one of their own stages has
}

// stage is one step of the written order. Each plans anew, from what it observes: the stages before it may have changed things.
type stage struct {
	name string
	plan func(ctx context.Context, p *pass) (work, error)
}

// work is what a stage wants to do.
type work struct {
	steps []plan.Step
	apply func(ctx context.Context) error // nil when every step is blocked
}

// stages is the order of a pass. It is what keeps a blade closed: what a guest could use is taken away before its rules are,
// and rules stand before a port joins its bridge and before the guest runs.
func (a *Agent) stages() []stage {
	return []stage{
		{"guests", a.removeGuests},
		{"links", a.removeLinks},
		{"links", a.createLinks},
		{"filter", a.applyFilter},
		{"links", a.attachLinks},
		{"inside", a.fillNamespaces},
		{"guests", a.runGuests},
		{"director", a.tellDirectors},
	}
}

// outcome is what a pass did and what it could not do.
type outcome struct {
	steps   []plan.Step // everything that was planned, in order
	waiting []api.Waiting
	err     error // what failed, joined in the order of the stages
}

// walk runs one pass. A failure holds back only what depends on it.
func (a *Agent) walk(ctx context.Context, p *pass) outcome {
	p.held = map[policy.GuestName]string{}
	var out outcome
	for _, s := range a.stagesOf(p) {
		begin := time.Now()
		a.health.beat(s.name)
		w, err := s.plan(ctx, p)
		if err != nil {
			out.fail(s, nil, err)
			continue
		}
		out.steps = append(out.steps, w.steps...)
		if p.apply && w.apply != nil {
			p.seen = nil
			if s.name == "guests" {
				p.found = nil
			}
			err = w.apply(ctx)
		}
		for _, step := range w.steps {
			if step.Verb == plan.Blocked {
				out.waiting = append(out.waiting, api.Waiting{Step: step})
			}
		}
		if err != nil {
			out.fail(s, w.steps, err)
		}
		took := time.Since(begin)
		a.tell(p, s, w.steps, err, took)
		if p.apply {
			a.did(s, w.steps, err, took)
			if s.name == "filter" {
				a.health.ready(a.cfg.Ready)
			}
		}
	}
	return out
}

// fail notes that a stage could not be done.
func (o *outcome) fail(s stage, steps []plan.Step, err error) {
	o.err = errors.Join(o.err, fmt.Errorf("%s: %w", s.name, err))
	step := plan.Step{Subsystem: s.name, Verb: plan.Blocked, Object: s.name, Reason: "cannot be read"}
	if len(steps) > 0 {
		step.Reason = fmt.Sprintf("%d steps: see the error", len(steps))
	}
	o.waiting = append(o.waiting, api.Waiting{Step: step, Error: err.Error()})
}

// tell logs what a stage did, one line a step, and hands it to whoever asked for this pass.
func (a *Agent) tell(p *pass, s stage, steps []plan.Step, err error, took time.Duration) {
	if !p.apply {
		return
	}
	for i, step := range steps {
		if step.Verb != plan.Blocked && err == nil {
			a.log.Info("applied", "subsystem", step.Subsystem, "step", string(step.Verb)+" "+step.Object, "guest", step.Guest)
		}
		if p.report != nil {
			e := api.Event{Step: &steps[i]}
			if i == len(steps)-1 {
				e.Took = took
			}
			p.report(e)
		}
	}
	if err != nil {
		a.log.Error("apply", "subsystem", s.name, "err", err)
		if p.report != nil {
			p.report(api.Event{Message: fmt.Sprintf("! %s: %v", s.name, err)})
		}
	}
}

// hold keeps a guest from going further in this pass; the first reason stays.
func (p *pass) hold(guest policy.GuestName, reason string) {
	if _, ok := p.held[guest]; !ok && guest != "" {
		p.held[guest] = reason
	}
}

// blocked returns step as one that is not done, and why.
func blocked(step plan.Step, reason string) plan.Step {
	step.Verb, step.Reason = plan.Blocked, reason
	return step
}
