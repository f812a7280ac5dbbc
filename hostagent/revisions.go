package hostagent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Plan says what would change for files, for a revision, or for the policy folder.
func (a *Agent) Plan(ctx context.Context, r api.PlanRequest) (api.Plan, error) {
	if r.From != 0 {
		return a.planBetween(r.From, r.Revision)
	}
	a.passing.Lock()
	defer a.passing.Unlock()
	files, err := a.asked(r)
	if err != nil {
		return api.Plan{}, err
	}
	blade, found := a.derive(files)
	answer := api.Plan{Version: api.Version, Blade: a.cfg.Blade, Revision: a.wantedNow().revision.Number, Diagnostics: found, Steps: []plan.Step{}}
	if found.HasErrors() {
		return answer, nil
	}
	if answer.Given, err = given(blade.Guests); err != nil {
		return answer, err
	}
	out := a.walk(ctx, &pass{blade: blade})
	answer.Steps = append(answer.Steps, out.steps...)
	state, err := guests.Observe(ctx, a.cfg.Drivers, a.cfg.Images, blade.Guests)
	answer.Notes = notes(blade.Guests, state)
	return answer, errors.Join(out.err, err)
}

// notes says which guests stand on an older build of their image.
func notes(wanted []policy.Guest, state guests.State) []string {
	var out []string
	for _, g := range wanted {
		if have, newer := state.Builds(g); newer != "" {
			out = append(out, fmt.Sprintf("%s stands on %s, and %s is newer: `bladectl restart --reclone %s`", g.Name, have, newer, g.Name))
		}
	}
	return out
}

// asked returns the files that a plan is asked for.
func (a *Agent) asked(r api.PlanRequest) ([]policy.File, error) {
	switch {
	case len(r.Files) > 0:
		var files []policy.File
		for _, f := range r.Files {
			files = append(files, policy.File{Name: f.Name, Data: []byte(f.Data)})
		}
		return files, nil
	case r.Revision != 0:
		old, err := a.revisions.Load(r.Revision)
		return old.Files, err
	}
	return policy.ReadDir(a.cfg.Policy)
}

// planBetween is the way from a blade that is as one revision says to another.
func (a *Agent) planBetween(from, to int) (api.Plan, error) {
	var blades [2]policy.Blade
	answer := api.Plan{Version: api.Version, Blade: a.cfg.Blade, Revision: a.wantedNow().revision.Number, Steps: []plan.Step{}}
	if to == 0 {
		to = answer.Revision
	}
	for i, number := range []int{from, to} {
		r, err := a.revisions.Load(number)
		if err != nil {
			return answer, err
		}
		blade, found := a.derive(r.Files)
		if found.HasErrors() {
			answer.Diagnostics = found
			return answer, nil
		}
		blades[i] = blade
	}
	answer.Steps = append(answer.Steps, difference(blades[0], blades[1])...)
	return answer, nil
}

// Revisions lists what is on disk. A file that cannot be read is left out; a plan or rollback to it says why.
func (a *Agent) Revisions() (api.Revisions, error) {
	out := api.Revisions{Version: api.Version, InForce: a.wantedNow().revision.Number, Revisions: []api.Revision{}}
	numbers, err := a.revisions.Numbers()
	if err != nil {
		return out, err
	}
	var each reading // one revision differs little from the one before
	for _, n := range numbers {
		if r, err := a.revisions.Load(n); err == nil {
			out.Revisions = append(out.Revisions, a.revisionStatus(r, &each))
		}
	}
	return out, nil
}

// Revision returns one revision with its files.
func (a *Agent) Revision(number int) (api.Revision, error) {
	r, err := a.revisions.Load(number)
	if err != nil {
		return api.Revision{}, err
	}
	out := a.revisionStatus(r, &reading{})
	for _, f := range r.Files {
		out.Files = append(out.Files, api.File{Name: f.Name, Data: string(f.Data)})
	}
	return out, nil
}

func (a *Agent) revisionStatus(r revision.Revision, files *reading) api.Revision {
	now := a.wantedNow().revision
	out := api.Revision{Number: r.Number, Time: r.Time, Note: r.Note, State: api.Followed, Reason: r.Failed, Guests: -1}
	switch {
	case r.Number == now.Number && now.Trial != nil:
		out.State = api.OnTrial
	case r.Number == now.Number:
		out.State = api.InForce
	case r.Failed != "" || r.Trial != nil:
		out.State = api.LeftAgain
	}
	fleet, found := files.load(r.Files)
	if found.HasErrors() {
		return out
	}
	if blade, err := files.derive(fleet, a.cfg.Blade); err == nil {
		out.Guests, out.Services = len(blade.Guests), len(blade.Services)
	}
	return out
}

// Rollback makes an earlier revision's files a new revision and the blade so. It ends a trial, or goes to the number asked for, or to the
// last good revision that differs from the one in force. The policy folder is left as it is: it is the operator's.
func (a *Agent) Rollback(ctx context.Context, r api.RollbackRequest, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	now := a.wantedNow().revision
	if t := now.Trial; t != nil {
		if r.Revision != 0 && r.Revision != t.Back {
			return onTrial(now)
		}
		return a.giveUp(ctx, "an operator rolled it back", report)
	}
	to, err := a.rollbackTo(r.Revision, now)
	if err != nil {
		return err
	}
	if sameFiles(to.Files, now.Files) {
		return fmt.Errorf("revision %d is what is in force: nothing to roll back", to.Number)
	}
	note := fmt.Sprintf("rollback from %d to %d", now.Number, to.Number)
	if err := a.install(ctx, draft{note: note, files: to.Files, window: r.Confirm}, report); err != nil {
		return err
	}
	a.condemn(now, "an operator rolled it back")
	return nil
}

// rollbackTo finds the revision to go to; number 0 asks for the last good one.
func (a *Agent) rollbackTo(number int, now revision.Revision) (revision.Revision, error) {
	if number != 0 {
		return a.revisions.Load(number)
	}
	numbers, err := a.revisions.Numbers()
	if err != nil {
		return revision.Revision{}, err
	}
	for _, n := range slices.Backward(numbers) {
		r, err := a.revisions.Load(n)
		if err == nil && r.Number < now.Number && r.Failed == "" && r.Trial == nil && !sameFiles(r.Files, now.Files) {
			return r, nil
		}
	}
	return revision.Revision{}, fmt.Errorf("there is no good revision before %d: `bladectl revisions` lists them", now.Number)
}
