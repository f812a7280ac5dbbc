package director

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/announce"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// round brings the director one pass closer to the newest state, and tells whoever waits for it.
func (c *Controller) round(ctx context.Context, sets chan<- []policy.Check) {
	c.mu.Lock()
	state, wanted := c.state, c.wanted
	c.mu.Unlock()
	if wanted == 0 {
		return
	}
	pctx, cancel := context.WithTimeout(ctx, passTimeout)
	if wanted != c.begun {
		c.adopt(pctx, state, sets)
		c.begun = wanted
	}
	err := c.pass(pctx, state)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if err == nil && c.saved != wanted {
		if err = c.cfg.Store.Save(state); err == nil {
			c.saved = wanted
			c.cfg.Log.Info("state reached", "revision", state.Revision, "guest", state.Guest)
		}
	}
	c.mu.Lock()
	if err != nil && (c.err == nil || c.err.Error() != err.Error()) {
		c.cfg.Log.Error("pass", "revision", state.Revision, "err", err)
	}
	c.err, c.reached = err, wanted
	close(c.passed)
	c.passed = make(chan struct{})
	c.mu.Unlock()
}

// adopt hands a new state to the checks and to the routing daemons, and forgets checks that are gone. Interfaces and routes come
// before all: checks need them, and IPVS refuses every IPv4 destination in a namespace that has no address yet.
func (c *Controller) adopt(ctx context.Context, state channel.Apply, sets chan<- []policy.Check) {
	served := c.presume(ctx, state)
	if held, err := c.loopback(ctx); err == nil {
		ground := state.Inside
		ground.VIPs = slices.DeleteFunc(slices.Clone(ground.VIPs), func(v policy.VIP) bool { return !held[v.Address] })
		steps, _ := c.cfg.Place.Converge(ctx, ground) // the pass after this meets the same error, and says so
		c.report(steps)
	}
	c.settling.begin(state.Balancer, served, time.Now())
	select {
	case sets <- state.Balancer.Checks:
	case <-ctx.Done():
		return
	}
	c.probes.keep(state.Balancer.Checks)
	c.cfg.Announcer.Want(announce.Of(state.Inside, state.Balancer.Announce))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retarget = true
	for id := range c.health {
		if !slices.ContainsFunc(state.Balancer.Checks, func(k policy.Check) bool { return k.ID == id }) {
			delete(c.health, id)
		}
	}
}

// presume takes a real server that has a weight in the kernel for up until its first probe has ended. A table that outlived
// the process before this one keeps its rotation, and so does a server whose check a new state merely changes; a table of a
// machine that has just booted is empty. It returns the services of which one does.
func (c *Controller) presume(ctx context.Context, state channel.Apply) map[ServiceKey]bool {
	served := map[ServiceKey]bool{}
	have, err := c.cfg.Table.Observe(ctx)
	if err != nil {
		return served // the pass after this says so
	}
	weighs := map[ipvs.DestinationKey]bool{}
	for _, s := range have.Services {
		for _, d := range s.Destinations {
			weighs[ipvs.DestinationKey{Service: s.Key, Address: d.Address, Port: d.Port}] = d.Weight > 0
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range state.Balancer.Services {
		key := ipvs.KeyOf(v)
		for _, d := range v.Destinations {
			if !weighs[ipvs.DestinationKey{Service: key, Address: d.Address, Port: d.Port}] {
				continue
			}
			served[KeyOf(v)] = true
			if _, known := c.health[d.Check]; d.Check != "" && !known {
				c.health[d.Check] = health.Result{ID: d.Check, State: health.Up}
			}
		}
	}
	return served
}

// pass decides and applies: weights first, so that a VIP is announced only with real servers behind it. When the table cannot
// be reached no VIP is added, and none is taken away: what works is left alone.
func (c *Controller) pass(ctx context.Context, state channel.Apply) error {
	held, err := c.loopback(ctx)
	if err != nil {
		return err
	}
	unheard := c.listen(state)
	c.mu.Lock()
	now := time.Now()
	before := Memory{Unheard: unheard, Quorums: c.decision.quorums(), Settling: c.settling.now(state.Balancer, c.health, now), Held: held, Now: now}
	if c.decision.Services == nil {
		before.Quorums = quorumsOf(state.Balancer, held)
	}
	decision := Decide(state.Balancer, state.Inside.VIPs, c.health, before)
	c.sayVIPs(c.decision, decision)
	c.sayUnheard(c.unheard, unheard)
	c.decision, c.unheard = decision, unheard
	c.mu.Unlock()

	tableErr := c.balance(ctx, state.Balancer, decision)
	synced, syncErr := c.cfg.Table.Sync(ctx, syncLink, state.Balancer.Sync)
	c.report(synced)
	want := state.Inside
	want.Sysctls = slices.Concat(want.Sysctls, state.Balancer.Sysctls)
	want.VIPs = announced(state.Inside.VIPs, decision, held, tableErr != nil)
	steps, err := c.cfg.Place.Converge(ctx, want)
	c.report(steps)
	if c.cfg.Hostname != nil && want.Hostname != "" {
		err = errors.Join(err, c.cfg.Hostname(want.Hostname))
	}
	if len(steps) > 0 || err != nil {
		if after, loErr := c.loopback(ctx); loErr == nil {
			held = after
		}
	}
	c.mu.Lock()
	c.held = held
	c.mu.Unlock()
	c.cfg.Announcer.Up(slices.SortedFunc(maps.Keys(held), netip.Addr.Compare))
	c.commands.want(state.Balancer.Services, decision, before.Settling)
	return errors.Join(tableErr, syncErr, err)
}

// syncLink is where directors tell each other of their connections.
const syncLink = "eth1"

// sayVIPs logs which VIPs come and go between two decisions, and why.
func (c *Controller) sayVIPs(before, after Decision) {
	was := map[netip.Addr]bool{}
	for _, v := range before.VIPs {
		was[v.Address] = v.Up
	}
	for _, v := range after.VIPs {
		switch {
		case v.Up && !was[v.Address]:
			c.cfg.Log.Info("announce VIP", "vip", v.Address)
		case !v.Up && was[v.Address]:
			c.cfg.Log.Warn("withdraw VIP", "vip", v.Address, "reason", v.Reason)
		}
	}
}

func (c *Controller) loopback(ctx context.Context) (map[netip.Addr]bool, error) {
	addrs, err := c.cfg.Place.Loopback(ctx)
	if err != nil {
		return nil, err
	}
	held := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		held[a] = true
	}
	return held, nil
}

// quorumsOf takes a service whose VIP outlived the process before this one for one that had its quorum.
func quorumsOf(b policy.Balancer, held map[netip.Addr]bool) map[ServiceKey]bool {
	had := map[ServiceKey]bool{}
	for _, v := range b.Services {
		had[KeyOf(v)] = held[v.VIP]
	}
	return had
}

// announced picks the VIPs for the loopback. With a frozen table only those stay that are there.
func announced(vips []policy.VIP, d Decision, held map[netip.Addr]bool, frozen bool) []policy.VIP {
	var out []policy.VIP
	for i, v := range vips {
		if up := d.VIPs[i].Up; up && !frozen || frozen && held[v.Address] {
			out = append(out, v)
		}
	}
	return out
}

// balance makes the IPVS table follow the decision.
func (c *Controller) balance(ctx context.Context, b policy.Balancer, d Decision) error {
	weights, reasons := make([][]int, len(d.Services)), make([][]string, len(d.Services))
	for i, s := range d.Services {
		weights[i], reasons[i] = s.Weights, s.Reasons
	}
	want, err := ipvs.Wanted(b.Services, weights, reasons)
	if err != nil {
		return err
	}
	have, err := c.cfg.Table.Observe(ctx)
	if err != nil {
		return err
	}
	want.Overdue = c.overdue(want, have)
	steps := ipvs.Plan(want, have)
	if len(steps) == 0 {
		return nil
	}
	done := make([]plan.Step, len(steps))
	for i, s := range steps {
		done[i] = s.Step
	}
	c.report(done)
	if err := c.cfg.Table.Apply(ctx, steps); err != nil {
		return fmt.Errorf("apply ipvs: %w", err)
	}
	return nil
}

// overdue remembers since when each destination that the policy dropped drains, and returns those that did so long enough.
func (c *Controller) overdue(want, have ipvs.Table) map[ipvs.DestinationKey]bool {
	out, still := map[ipvs.DestinationKey]bool{}, map[ipvs.DestinationKey]time.Time{}
	for _, k := range ipvs.Leaving(want, have) {
		since, ok := c.leaving[k]
		if !ok {
			since = time.Now()
		}
		still[k] = since
		out[k] = time.Since(since) >= lingerFor
	}
	c.leaving = still
	return out
}

func (c *Controller) report(steps []plan.Step) {
	for _, s := range steps {
		c.cfg.Log.Info(string(s.Verb)+" "+s.Object, "subsystem", s.Subsystem, "detail", s.Detail, "reason", s.Reason)
	}
}
