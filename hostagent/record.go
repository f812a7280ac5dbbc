package hostagent

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// record puts an entry into the journal.
func (a *Agent) record(e api.Entry) {
	if err := a.journal.Add(e); err != nil {
		a.log.Warn("journal", "err", err)
	}
}

// Events returns the journal's entries after one, and a channel that is closed when there is another.
func (a *Agent) Events(after uint64) ([]api.Entry, <-chan struct{}) { return a.journal.After(after) }

// did counts and records the steps of a stage that were tried. A step is a repair when the revision had its way before and nothing
// stood in that step's way: somebody else changed the blade.
func (a *Agent) did(s stage, steps []plan.Step, err error, took time.Duration) {
	a.meters.reconciled(s.name, took)
	now := time.Now()
	for _, step := range steps {
		drift := a.isDrift(step)
		if step.Verb == plan.Blocked {
			continue
		}
		if drift {
			a.meters.drift.found(step)
		}
		if err != nil {
			continue
		}
		e := api.Entry{
			Kind: api.Applied, Revision: a.wantedNow().revision.Number, Subsystem: step.Subsystem, Verb: step.Verb, Object: step.Object, Guest: step.Guest,
			Message: reasonOfStep(step),
		}
		if drift {
			a.meters.drift.repaired(step)
			e.Kind = api.Repaired
			is, count := a.fights.repaired(step, now)
			a.recordFight(step, is, count)
			if is == goesOn || is == goesOnN {
				continue // it would fill the journal
			}
		}
		a.record(e)
	}
}

// recordFight alerts when a fight begins, and again each time its repairs have doubled.
func (a *Agent) recordFight(step plan.Step, is verdict, count int) {
	var text string
	switch is {
	case begins:
		text = fmt.Sprintf("repaired %d times within %s: somebody else changes it again and again; repairs are spaced from now on", count, fightWithin)
	case goesOnN:
		text = fmt.Sprintf("repaired %d times: somebody else still changes it", count)
	default:
		return
	}
	a.log.Warn("fight", "subsystem", step.Subsystem, "object", step.Object, "repairs", count)
	a.record(api.Entry{Kind: api.Fight, Subsystem: step.Subsystem, Object: step.Object, Guest: step.Guest, Message: text})
}

func reasonOfStep(step plan.Step) string {
	if len(step.Detail) > 0 {
		return step.Detail[0]
	}
	return step.Reason
}

// isDrift says whether a step is there because the blade changed, not because what is wanted did or was held up.
func (a *Agent) isDrift(step plan.Step) bool {
	if a.fights.on(step) {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.reached || step.Subsystem == "director" {
		return false
	}
	return !slices.ContainsFunc(a.waiting, func(w api.Waiting) bool {
		return key(w.Step) == key(step) || w.Error != "" && w.Step.Subsystem == step.Subsystem
	})
}

// recordWaiting records what has begun to wait and what waits no more. What is fought over waits and settles at each repair: recordFight
// tells of it.
func (a *Agent) recordWaiting(before, after []api.Waiting) {
	has := func(list []api.Waiting, w api.Waiting) bool {
		return slices.ContainsFunc(list, func(x api.Waiting) bool { return key(x.Step) == key(w.Step) })
	}
	for _, w := range after {
		if !has(before, w) && !a.fights.on(w.Step) {
			a.record(entryOf(w, api.IsWaiting))
		}
	}
	for _, w := range before {
		if !has(after, w) && !a.fights.on(w.Step) {
			a.record(entryOf(w, api.Settled))
		}
	}
}

func entryOf(w api.Waiting, kind api.EntryKind) api.Entry {
	e := api.Entry{Kind: kind, Subsystem: w.Step.Subsystem, Object: w.Step.Object, Guest: w.Step.Guest}
	if kind == api.IsWaiting {
		e.Message = w.Step.Reason
		if w.Error != "" {
			e.Message = w.Error
		}
	}
	return e
}

// recordGuests records the guests whose life went on since the last pass.
func (a *Agent) recordGuests(have []guests.Observed) {
	now := map[policy.GuestName]guests.Phase{}
	for _, o := range have {
		if o.Phase != guests.Foreign {
			now[o.Name] = o.Phase
		}
	}
	a.mu.Lock()
	before := a.phases
	a.phases = now
	a.mu.Unlock()
	if before == nil {
		return // the first look is no change
	}
	for _, o := range have {
		if was := before[o.Name]; now[o.Name] != "" && was != now[o.Name] {
			a.record(api.Entry{Kind: api.GuestIs, Guest: string(o.Name), Message: phaseOf(was) + " -> " + phaseOf(now[o.Name])})
		}
	}
	for name, was := range before {
		if now[name] == "" {
			a.record(api.Entry{Kind: api.GuestIs, Guest: string(name), Message: phaseOf(was) + " -> absent"})
		}
	}
}

func phaseOf(p guests.Phase) string {
	if p == "" {
		return "absent"
	}
	return string(p)
}

// rotationLines is the most that one answer of a director may put into the journal.
const rotationLines = 20

// recordRotation records what a director says otherwise than before.
func (a *Agent) recordRotation(director policy.GuestName, before, after channel.Status) {
	lines := rotation(before, after)
	if more := len(lines) - rotationLines; more > 0 {
		lines = append(lines[:rotationLines], fmt.Sprintf("and %d more changes", more))
	}
	for _, line := range lines {
		a.record(api.Entry{Kind: api.Rotation, Subsystem: "director", Guest: string(director), Message: line})
	}
}

// rotation says what differs between two answers: services up or down, announced or not, weights that come and go, and
// who is not heard from a VIP.
func rotation(before, after channel.Status) []string {
	was := map[string]channel.ServiceStatus{}
	for _, s := range before.Services {
		was[placeOf(s)] = s
	}
	var out []string
	for _, s := range after.Services {
		old, where := was[placeOf(s)], placeOf(s)
		if old.Up != s.Up {
			out = append(out, where+map[bool]string{true: " is up", false: " is down"}[s.Up])
		}
		if old.Announced != s.Announced {
			out = append(out, where+map[bool]string{true: " is announced", false: " is withdrawn"}[s.Announced])
		}
		weights, unheard := map[policy.GuestName]int{}, map[policy.GuestName]bool{}
		for _, d := range old.Destinations {
			weights[d.Guest], unheard[d.Guest] = d.Weight, d.Unheard
		}
		for _, d := range s.Destinations {
			if d.Up && unheard[d.Guest] != d.Unheard {
				out = append(out, fmt.Sprintf("%s: %s is well and %s", where, d.Guest, map[bool]string{true: "not heard from the VIP", false: "heard from the VIP again"}[d.Unheard]))
			}
			if weights[d.Guest] == d.Weight {
				continue
			}
			line := fmt.Sprintf("%s: %s has weight %d, had %d", where, d.Guest, d.Weight, weights[d.Guest])
			if d.Weight == 0 && d.Reason != "" {
				line += ": " + d.Reason
			}
			out = append(out, line)
		}
	}
	return append(out, moved(before.Announce.Holds, after.Announce.Holds)...)
}

// moved says which VIPs a director took over by VRRP, and which it gave up.
func moved(before, after []netip.Addr) []string {
	var out []string
	for _, v := range after {
		if !slices.Contains(before, v) {
			out = append(out, fmt.Sprintf("has VIP %s now", v))
		}
	}
	for _, v := range before {
		if !slices.Contains(after, v) {
			out = append(out, fmt.Sprintf("has VIP %s no more", v))
		}
	}
	return out
}

func placeOf(s channel.ServiceStatus) string {
	return fmt.Sprintf("%s at %s %d/%s", s.Service, s.VIP, s.Port, s.Protocol)
}
