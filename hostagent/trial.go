package hostagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// How long a revision may take to verify, the first pause before it is looked at again, how often the agent may end while it is
// applied, and the longest window to confirm it in.
const (
	verifyTimeout = 20 * time.Second
	verifyPoll    = 250 * time.Millisecond
	mostTries     = 3
	longestWindow = 24 * time.Hour
)

// Apply makes the policy folder the revision in force and the blade so. A revision that does not verify, and with a window one that
// nobody confirms, is followed by the one before it.
func (a *Agent) Apply(ctx context.Context, r api.ApplyRequest, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	files, err := policy.ReadDir(a.cfg.Policy)
	if err != nil {
		return err
	}
	return a.install(ctx, draft{note: r.Note, files: files, window: r.Confirm}, report)
}

// draft is a set of files that is to become a revision.
type draft struct {
	note   string
	files  []policy.File
	window time.Duration // somebody must confirm within it; 0: nobody must
}

// install makes a draft the revision in force, on trial until it verifies and is confirmed. The caller holds passing.
func (a *Agent) install(ctx context.Context, d draft, report func(api.Event)) error {
	before := a.wantedNow().revision
	switch {
	case before.Trial != nil:
		return onTrial(before)
	case d.window < 0 || d.window > longestWindow:
		return fmt.Errorf("confirm within %s: from 1s to %s", d.window, longestWindow)
	case d.window > 0 && a.spawning.Load() > 0:
		return errors.New("a spawn is under way, and a return would cut across it: try again when it has ended")
	case d.window > 0 && before.Number == 0:
		return errors.New("this is the first revision, there is none to return to: apply without --confirm")
	}
	if before.Number > 0 && sameFiles(before.Files, d.files) { // they were checked when they came into force
		return a.pass(ctx, report)
	}
	blade, err := a.check(d.files, report)
	if err != nil {
		return err
	}
	r := revision.Revision{Note: d.note, Files: d.files}
	if before.Number > 0 {
		r.Trial = &revision.Trial{Back: before.Number, Window: d.window}
		if d.window > 0 {
			r.Trial.Deadline = time.Now().Add(d.window)
		}
	}
	known := a.foresee(ctx, blade)
	if err := a.enforce(r, blade, report); err != nil {
		return err
	}
	return a.try(ctx, known, report)
}

// try brings the blade to the revision in force and verifies it; one on trial passes that part of it or is returned from. The caller
// holds passing.
func (a *Agent) try(ctx context.Context, known foreseen, report func(api.Event)) error {
	err := a.verify(ctx, known, report)
	now := a.wantedNow()
	trial := now.revision.Trial
	switch {
	case ctx.Err() != nil, trial == nil: // the trial goes on after the agent's restart
		return err
	case err != nil:
		return errors.Join(err, a.giveUp(ctx, err.Error(), report))
	}
	if trial.Window == 0 {
		return a.signOff(now)
	}
	next := *trial
	next.Verified, next.Deadline = true, time.Now().Add(trial.Window) // the time that the work took is not the operator's
	now.revision.Trial = &next
	if err := a.revisions.Update(now.revision); err != nil {
		return errors.Join(err, a.giveUp(ctx, err.Error(), report))
	}
	a.keepTrial(now)
	a.Wake() // the loop waits for the deadline
	report(api.Event{Message: fmt.Sprintf("`bladectl confirm` within %s, or the blade returns to revision %d", trial.Window, trial.Back)})
	return nil
}

// signOff ends the trial of the revision in force well.
func (a *Agent) signOff(now wanted) error {
	now.revision.Trial = nil
	if err := a.revisions.Update(now.revision); err != nil {
		return err
	}
	a.keepTrial(now)
	a.log.Info("revision signed off", "revision", now.revision.Number)
	a.record(api.Entry{Kind: api.Revised, Revision: now.revision.Number, Message: "signed off"})
	return nil
}

// keepTrial keeps another state of the trial of the revision in force.
func (a *Agent) keepTrial(now wanted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now.revision = now.revision
}

// Confirm signs off the revision on trial; number 0 means whichever it is.
func (a *Agent) Confirm(number int) (int, error) {
	a.passing.Lock()
	defer a.passing.Unlock()
	now := a.wantedNow()
	r := now.revision
	switch {
	case r.Trial == nil:
		return 0, fmt.Errorf("nothing waits to be confirmed: revision %d is in force (%s)", r.Number, r.Note)
	case number != 0 && number != r.Number:
		return 0, fmt.Errorf("revision %d does not wait to be confirmed, revision %d does", number, r.Number)
	case !r.Trial.Verified:
		return 0, fmt.Errorf("revision %d has not verified yet", r.Number)
	}
	return r.Number, a.signOff(now)
}

// resume goes on with the trial that an earlier process left.
func (a *Agent) resume(ctx context.Context) {
	a.passing.Lock()
	defer a.passing.Unlock()
	now := a.wantedNow()
	if t := now.revision.Trial; t == nil || t.Verified || t.Window > 0 && t.Left(time.Now()) == 0 {
		return // expire sees to a window that is over
	}
	again := *now.revision.Trial
	again.Tries++
	now.revision.Trial = &again
	err := a.revisions.Update(now.revision)
	if err != nil {
		a.log.Error("count the tries of a revision", "err", err)
	}
	a.keepTrial(now)
	if again.Tries > mostTries {
		a.returnLogged(ctx, fmt.Sprintf("bladed ended %d times while it was applied", again.Tries))
		return
	}
	a.log.Info("bladed ended while this revision was applied: finishing it", "revision", now.revision.Number)
	if err := a.try(ctx, a.foresee(ctx, now.blade), func(api.Event) {}); err != nil && ctx.Err() == nil {
		a.log.Error("finish revision", "revision", now.revision.Number, "err", err)
	}
}

// expire returns from a revision that nobody confirmed in time.
func (a *Agent) expire(ctx context.Context) {
	a.passing.Lock()
	defer a.passing.Unlock()
	r := a.wantedNow().revision
	if t := r.Trial; t == nil || t.Window == 0 || t.Left(time.Now()) > 0 {
		return
	}
	a.returnLogged(ctx, fmt.Sprintf("nobody confirmed it within %s", r.Trial.Window))
}

func (a *Agent) returnLogged(ctx context.Context, why string) {
	if err := a.giveUp(ctx, why, func(api.Event) {}); err != nil {
		a.log.Error("return", "err", err)
	}
}

// untilDeadline is how long the window is still open, or an hour when there is none.
func (a *Agent) untilDeadline() time.Duration {
	if t := a.wantedNow().revision.Trial; t != nil && t.Window > 0 {
		return t.Left(time.Now())
	}
	return time.Hour
}

// giveUp makes what was in force before the trial a new revision, and the blade so. A disk that takes no file does not stop the
// return: the old files are in force at once, and after a restart the trial on disk is over too. The caller holds passing.
func (a *Agent) giveUp(ctx context.Context, why string, report func(api.Event)) error {
	from := a.wantedNow().revision
	back, err := a.revisions.Load(from.Trial.Back)
	var blade policy.Blade
	if err == nil {
		blade, err = a.check(back.Files, report)
	}
	if err != nil { // nowhere to go: stay, and do not try for ever
		a.condemn(from, why)
		from.Trial = nil
		a.keepTrial(wanted{revision: from})
		return fmt.Errorf("return from revision %d to %d: %w; the blade stays as it is", from.Number, back.Number, err)
	}
	short, _, _ := strings.Cut(why, "\n")
	a.log.Warn("return", "revision", from.Number, "to", back.Number, "why", short)
	a.record(api.Entry{Kind: api.Revised, Revision: from.Number, Message: "returned from: " + why})
	report(api.Event{Message: fmt.Sprintf("revision %d is returned from: %s", from.Number, why)})
	note := fmt.Sprintf("return from %d to %d: %s", from.Number, back.Number, short)
	if err := a.enforce(revision.Revision{Note: note, Files: back.Files}, blade, report); err != nil {
		a.log.Error("keep the return on disk", "err", err)
		back.Trial = nil
		a.inForce(wanted{revision: back, blade: blade})
	}
	a.condemn(from, why)
	return a.pass(ctx, report)
}

// condemn notes in a revision why the blade left it.
func (a *Agent) condemn(r revision.Revision, why string) {
	r.Trial, r.Failed = nil, why
	if err := a.revisions.Update(r); err != nil {
		a.log.Error("note why a revision was left", "err", err)
	}
}

// foreseen is what stands in the way before a revision is tried: steps that its plan says are blocked, and directors that do not
// answer anyway. None of it is the revision's fault.
type foreseen struct {
	blocked map[string]bool
	answers map[string]bool // directors that had their state
}

func (a *Agent) foresee(ctx context.Context, blade policy.Blade) foreseen {
	known := foreseen{blocked: map[string]bool{}, answers: map[string]bool{}}
	for _, w := range a.walk(ctx, &pass{blade: blade}).waiting {
		known.blocked[key(w.Step)] = true
	}
	for _, g := range blade.Guests {
		if answer, ok := a.helpers.last(g.Name); ok && answer.inForce && answer.status.Error == "" {
			known.answers[string(g.Name)] = true
		}
	}
	return known
}

// left is what an outcome still has to do that was not foreseen.
func (k foreseen) left(o outcome) []plan.Step {
	var left []plan.Step
	add := func(s plan.Step) {
		if k.blocked[key(s)] || s.Subsystem == "director" && !k.answers[s.Guest] {
			return
		}
		left = append(left, s)
	}
	for _, s := range o.steps {
		add(s)
	}
	for _, w := range o.waiting {
		if w.Error != "" { // the others are among the steps
			w.Step.Reason = w.Error
			add(w.Step)
		}
	}
	return left
}

// verify passes over the blade until it is observed to be as the revision in force says, but not for long.
func (a *Agent) verify(ctx context.Context, known foreseen, report func(api.Event)) error {
	deadline := time.Now().Add(a.verifyFor)
	for pause := verifyPoll; ; pause *= 2 {
		failed := a.pass(ctx, report)
		if err := ctx.Err(); err != nil {
			return errors.Join(err, failed)
		}
		now := a.wantedNow()
		left := known.left(a.walk(ctx, &pass{blade: now.blade}))
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			var lines []string
			for _, s := range left {
				lines = append(lines, s.String())
			}
			return errors.Join(fmt.Errorf("revision %d does not verify within %s:\n%s", now.revision.Number, a.verifyFor, strings.Join(lines, "\n")), failed)
		}
		sleep(ctx, pause)
	}
}

// onTrial refuses to change the blade while a revision is on trial.
func onTrial(r revision.Revision) error {
	if r.Trial.Window == 0 {
		return fmt.Errorf("revision %d is being verified", r.Number)
	}
	return fmt.Errorf("revision %d waits to be confirmed, for another %s: `bladectl confirm` keeps it, `bladectl rollback` returns to revision %d",
		r.Number, r.Trial.Left(time.Now()).Round(time.Second), r.Trial.Back)
}
