package hostagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// linkSteps picks one phase of the plan for the links.
type linkSteps func(bridges.Steps) []bridges.Step

func (a *Agent) removeLinks(ctx context.Context, p *pass) (work, error) {
	if p.apply {
		a.insides.keep(p.blade.Guests)
	}
	return a.links(ctx, p, func(s bridges.Steps) []bridges.Step { return s.Remove })
}

func (a *Agent) createLinks(ctx context.Context, p *pass) (work, error) {
	return a.links(ctx, p, func(s bridges.Steps) []bridges.Step { return s.Create })
}

// attachLinks lets ports join their bridges. What could not be created holds its guest back, and a filter that is not as
// wanted holds every port back: a port that is not on a bridge forwards nothing.
func (a *Agent) attachLinks(ctx context.Context, p *pass) (work, error) {
	return a.links(ctx, p, func(s bridges.Steps) []bridges.Step {
		if p.apply {
			for _, left := range s.Create {
				p.hold(policy.GuestName(left.Guest), "its links could not be made")
			}
		}
		return s.Attach
	})
}

func (a *Agent) links(ctx context.Context, p *pass, pick linkSteps) (work, error) {
	if p.seen == nil {
		have, err := a.cfg.Links.Observe(ctx)
		if err != nil {
			return work{}, err
		}
		p.seen = &have
	}
	var w work
	var todo []bridges.Step
	now := time.Now()
	for _, s := range pick(bridges.Plan(bridges.Wanted(p.blade), *p.seen)) {
		guest := policy.GuestName(s.Guest)
		switch {
		case s.Verb == plan.Blocked:
			p.hold(guest, s.Reason)
		case p.held[guest] != "":
			s.Step = blocked(s.Step, p.held[guest])
		case a.fights.held(s.Step, now) != "":
			s.Step = blocked(s.Step, a.fights.held(s.Step, now))
			p.hold(guest, "its links are fought over")
		case p.closed != "" && guest != "":
			s.Step = blocked(s.Step, p.closed)
			p.hold(guest, p.closed)
		default:
			todo = append(todo, s)
		}
		w.steps = append(w.steps, s.Step)
	}
	if len(todo) > 0 {
		w.apply = func(ctx context.Context) error { return a.cfg.Links.Apply(ctx, todo) }
	}
	return w, nil
}

func (a *Agent) applyFilter(ctx context.Context, p *pass) (work, error) {
	have, err := a.cfg.Filter.Observe(ctx)
	if err != nil {
		p.closed = "the filter cannot be read"
		return work{}, err
	}
	want, err := a.reading.compile(p.blade)
	if err != nil {
		p.closed = "the filter cannot be planned"
		return work{}, err
	}
	var w work
	steps, held := want.Plan(have), ""
	for _, s := range steps {
		w.steps = append(w.steps, s.Step)
		held = cmp.Or(held, a.fights.held(s.Step, time.Now()))
	}
	if held != "" { // it is one transaction
		p.closed = "the filter is not as wanted"
		for i := range w.steps {
			w.steps[i] = blocked(w.steps[i], held)
		}
		return w, nil
	}
	if len(steps) > 0 {
		w.apply = func(ctx context.Context) error {
			err := a.cfg.Filter.Apply(ctx, steps)
			if err == nil {
				return nil
			}
			p.closed = "the filter is not as wanted"
			// The kernel's own word for a missing module is `protocol error`: say which one it is.
			return cmp.Or(a.cfg.Filter.Features(ctx), err)
		}
	}
	return w, nil
}

// fillNamespaces puts addresses, VIPs, routes and sysctls into the containers' network namespaces, before their init runs.
func (a *Agent) fillNamespaces(ctx context.Context, p *pass) (work, error) {
	var w work
	var errs []error
	var todo []func(context.Context) error
	var here []policy.Guest
	var places []inside.Place
	for _, g := range p.blade.Guests {
		if g.Driver != policy.DriverLXC || p.held[g.Name] != "" {
			continue
		}
		if p.apply {
			a.insides.watch(a.life, g.Name)
		}
		here = append(here, g)
		places = append(places, inside.Place{Namespace: policy.NamespacePath(g.Name), Want: g.Inside})
	}
	for i, seen := range inside.ObserveAll(ctx, places) {
		g, ns := here[i], places[i].Namespace
		have, err := seen.State, seen.Err
		if errors.Is(err, fs.ErrNotExist) && !p.apply {
			have, err = inside.Fresh(g.Inside), nil // a stage before this one will have made it
		}
		if err != nil {
			p.hold(g.Name, "its network namespace cannot be read")
			errs = append(errs, fmt.Errorf("observe %s: %w", g.Name, err))
			continue
		}
		steps := inside.Plan(g.Inside, have)
		if len(steps) == 0 {
			continue
		}
		held := ""
		for _, s := range steps {
			s.Guest = string(g.Name)
			held = cmp.Or(held, a.fights.held(s.Step, time.Now()))
			if held != "" {
				s.Step = blocked(s.Step, held)
			}
			w.steps = append(w.steps, s.Step)
		}
		if held != "" {
			continue
		}
		todo = append(todo, func(ctx context.Context) error {
			if err := a.fill(ctx, ns, steps); err != nil {
				p.hold(g.Name, "its network namespace could not be filled")
				return fmt.Errorf("fill %s: %w", g.Name, err)
			}
			return nil
		})
	}
	if len(todo)+len(errs) > 0 {
		w.apply = func(ctx context.Context) error {
			for _, do := range todo {
				errs = append(errs, do(ctx))
			}
			return errors.Join(errs...)
		}
	}
	return w, nil
}

// removeGuests stops and removes what is not wanted. The directors hear of it first, so that no request is sent to a real server
// that is about to end.
func (a *Agent) removeGuests(ctx context.Context, p *pass) (work, error) {
	w, err := a.guests(ctx, p, func(s guests.Steps) []guests.Step { return s.Remove })
	if remove := w.apply; remove != nil {
		w.apply = func(ctx context.Context) error {
			a.helpers.want(a.life, p.blade.Guests)
			a.helpers.settle(ctx)
			return remove(ctx)
		}
	}
	return w, err
}

func (a *Agent) runGuests(ctx context.Context, p *pass) (work, error) {
	return a.guests(ctx, p, func(s guests.Steps) []guests.Step { return s.Run })
}

func (a *Agent) guests(ctx context.Context, p *pass, pick func(guests.Steps) []guests.Step) (work, error) {
	if p.found == nil {
		have, err := guests.Observe(ctx, a.cfg.Drivers, a.cfg.Images, p.blade.Guests)
		if err != nil {
			return work{}, err
		}
		p.found = &have
	}
	have := *p.found
	a.stopped.hold(have.Held)
	a.holdSpares(p, have, time.Now())
	a.backoff.Hold(have.Held, time.Now())
	have.Hung = a.helpers.hung(have.Guests, time.Now())
	if p.apply {
		a.recordGuests(have.Guests)
	}
	var w work
	var todo []guests.Step
	for _, s := range pick(guests.Plan(p.blade.Guests, have)) {
		if reason := p.held[s.Name]; reason != "" && s.Verb != plan.Blocked {
			s.Step = blocked(s.Step, reason)
		}
		if s.Verb != plan.Blocked {
			todo = append(todo, s)
		}
		w.steps = append(w.steps, s.Step)
	}
	if len(todo) > 0 {
		w.apply = func(ctx context.Context) error {
			done := func(s guests.Step, _ time.Duration, err error) {
				a.backoff.Record(s, time.Now())
				a.tried(s, err)
				if s.Verb == plan.Stop && have.Hung[s.Name] != "" {
					a.helpers.restarted(s.Name, time.Now())
				}
				a.health.beat(s.Object)
			}
			return guests.Applier{Drivers: a.cfg.Drivers, Done: done}.Apply(ctx, todo)
		}
	}
	return w, nil
}

// tellDirectors hands each director, and each real server that is a virtual machine, the state that it should have. The conversations go on by themselves; what is planned
// here is what they have not reached yet.
func (a *Agent) tellDirectors(_ context.Context, p *pass) (work, error) {
	if p.apply {
		a.helpers.want(a.life, p.blade.Guests)
	}
	var w work
	for _, g := range p.blade.Guests {
		if g.Driver != policy.DriverKVM {
			continue
		}
		step := plan.Step{Subsystem: "director", Verb: plan.Update, Object: "state of " + string(g.Name), Guest: string(g.Name)}
		answer, known := a.helpers.last(g.Name)
		switch {
		case known && answer.inForce && answer.status.Revision == stateDigest(g):
			continue
		case known && answer.err != nil:
			step.Reason = "its helper does not answer: " + answer.err.Error()
		case !known || answer.seen.IsZero():
			step.Reason = "its helper has not answered yet"
		default:
			step.Detail = []string{answer.status.Revision + " -> " + stateDigest(g)}
			step.Reason = "its helper has an older one"
		}
		if p.apply {
			step = blocked(step, step.Reason+": handed over as soon as it takes it")
		}
		w.steps = append(w.steps, step)
	}
	return w, nil
}
