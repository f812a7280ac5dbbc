package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// How long a new guest may take to answer, and how often the agent looks.
const (
	rotationTimeout = 3 * time.Minute
	rotationPoll    = 100 * time.Millisecond
)

// Spawn writes a new guest into the policy folder, makes the blade so and returns when the guest is in rotation. When that
// fails, or the caller goes away, all of it is undone unless the request says to keep it.
func (a *Agent) Spawn(ctx context.Context, r api.SpawnRequest, report func(api.Event)) error {
	if r.Blade == "" {
		r.Blade = a.cfg.Blade
	}
	if r.Blade != a.cfg.Blade {
		return fmt.Errorf("spawn %s on %s: this is %s: ask the daemon of that blade", r.Name, r.Blade, a.cfg.Blade)
	}
	a.spawning.Add(1)
	defer a.spawning.Add(-1)
	done, err := a.place(r, report)
	if err != nil || done {
		return err
	}
	err = a.untilInRotation(ctx, r.Name, report)
	if err == nil || r.Keep || a.life.Err() != nil { // an agent that ends leaves the blade as it is
		return err
	}
	report(api.Event{Message: fmt.Sprintf("%s does not come up (%v): undoing", r.Name, err)})
	if undo := a.undo(r.Name, report); undo != nil {
		return errors.Join(err, fmt.Errorf("undo: %w", undo))
	}
	return fmt.Errorf("spawn %s: %w; all of it was undone", r.Name, err)
}

// place allocates, writes the entry and brings the blade to it. Done: there is nothing to wait for.
func (a *Agent) place(r api.SpawnRequest, report func(api.Event)) (done bool, err error) {
	a.passing.Lock()
	defer a.passing.Unlock()
	folder, err := a.folder(report)
	if err != nil {
		return false, err
	}
	if err := a.settled(folder); err != nil {
		return false, err
	}
	entry, err := policy.Allocate(folder.fleet, policy.SpawnRequest{
		Role: r.Role, Name: r.Name, Blade: r.Blade, Site: r.Site, Services: r.Services, Weight: r.Weight, Image: r.Image,
	})
	if err != nil {
		return false, err
	}
	entry.Name = filepath.Join(a.cfg.Policy, entry.Name)
	with := replaceFiles(folder.files, []policy.File{entry}, nil)
	if r.DryRun {
		report(api.Event{Message: "would write " + entry.Name + ":\n" + string(entry.Data)})
	}
	blade, err := a.check(with, report)
	if err != nil {
		return false, err
	}
	out := a.walk(a.life, &pass{blade: blade})
	if r.DryRun {
		for i := range out.steps {
			report(api.Event{Step: &out.steps[i]})
		}
		return true, out.err
	}
	if err := out.allows(r.Name); err != nil {
		return false, err
	}
	report(api.Event{Message: "policy entry " + entry.Name + ": " + addressesOf(blade, r.Name)})
	if err := revision.WriteFile(entry.Name, entry.Data, 0o644); err != nil {
		return false, fmt.Errorf("write %s: %w", entry.Name, err)
	}
	if _, err := a.enforce(revision.Revision{Note: "spawn " + string(r.Name), Files: with}, blade, report); err != nil {
		return false, errors.Join(err, os.Remove(entry.Name))
	}
	// A failure of another part of the blade is not this guest's: whether it comes up is what counts.
	if err := a.pass(a.life, report); err != nil {
		a.log.Warn("pass", "guest", r.Name, "err", err)
	}
	return false, nil
}

// allows refuses, before anything is written, a guest that this blade could not carry.
func (o outcome) allows(name policy.GuestName) error {
	for _, w := range o.waiting {
		if w.Step.Verb == plan.Blocked && w.Step.Guest == string(name) {
			return fmt.Errorf("spawn %s: %s: %s", name, w.Step.Object, w.Step.Reason)
		}
	}
	return nil
}

// folder is the policy folder as it is: its files and what they mean.
type folder struct {
	files []policy.File
	fleet *policy.Fleet
}

// folder reads the policy folder; its mistakes are reported.
func (a *Agent) folder(report func(api.Event)) (folder, error) {
	files, err := policy.ReadDir(a.cfg.Policy)
	if err != nil {
		return folder{}, err
	}
	fleet, found := a.reading.load(files)
	return folder{files, fleet}, refuse(found, report)
}

// Destroy takes a guest out of the policy folder and removes all that it had.
func (a *Agent) Destroy(_ context.Context, name policy.GuestName, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	from, err := a.folder(report)
	if err != nil {
		return err
	}
	if err := a.settled(from); err != nil {
		return err
	}
	return a.remove(from, name, "destroy "+string(name), report)
}

// undo takes back a spawn, whatever an operator has written into the folder meanwhile.
func (a *Agent) undo(name policy.GuestName, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	from, err := a.folder(report)
	if err != nil {
		return err
	}
	return a.remove(from, name, "undo spawn of "+string(name), report)
}

// settled refuses to change the policy folder by a word while what is in force is on trial, or is not what the folder holds: it
// would carry along what nobody has applied.
func (a *Agent) settled(f folder) error {
	now := a.wantedNow().revision
	if now.Trial != nil {
		return onTrial(now)
	}
	if now.Number > 0 && !sameFiles(f.files, now.Files) {
		return fmt.Errorf("%s has changes that are not in force: `bladectl plan` shows them; `bladectl apply` them or take them back first", a.cfg.Policy)
	}
	return nil
}

// remove takes a guest out of the folder's files and off the blade. The caller holds passing.
func (a *Agent) remove(from folder, name policy.GuestName, note string, report func(api.Event)) error {
	changed, gone, err := policy.RemoveGuest(from.files, from.fleet, name)
	if err != nil {
		return err
	}
	without := replaceFiles(from.files, changed, gone)
	blade, err := a.check(without, report)
	if err != nil {
		return err
	}
	for _, f := range changed {
		if err := revision.WriteFile(f.Name, f.Data, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
		report(api.Event{Message: "policy file " + f.Name + ": entry taken out"})
	}
	for _, f := range gone {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", f, err)
		}
		report(api.Event{Message: "policy file " + f + ": removed"})
	}
	if _, err := a.enforce(revision.Revision{Note: note, Files: without}, blade, report); err != nil {
		return err
	}
	return a.pass(a.life, report)
}

// untilInRotation waits until the guest does its work: a real server has weight in every service on every director of this
// blade, a director has applied its state and its routers know it.
func (a *Agent) untilInRotation(ctx context.Context, name policy.GuestName, report func(api.Event)) error {
	ctx, cancel := context.WithTimeout(ctx, rotationTimeout)
	defer cancel()
	begin, why := time.Now(), ""
	tick := time.NewTicker(rotationPoll)
	defer tick.Stop()
	for {
		ok, now := a.inRotation(name)
		if ok {
			report(api.Event{Message: now, Took: time.Since(begin)})
			return nil
		}
		if now != why {
			why = now
			report(api.Event{Message: "waiting: " + why})
		}
		select {
		case <-a.life.Done():
			return errors.New("bladed was stopped")
		case <-ctx.Done():
			return fmt.Errorf("still waiting after %s: %s", time.Since(begin).Round(time.Second), why)
		case <-tick.C:
		}
	}
}

// inRotation says whether a guest does its work, and what it does or what is missing.
func (a *Agent) inRotation(name policy.GuestName) (bool, string) {
	blade := a.wantedNow().blade
	for _, g := range blade.Guests {
		if g.Name != name {
			continue
		}
		if reason := a.heldBack(name); reason != "" {
			return false, reason
		}
		if g.Balancer != nil {
			return a.directorReady(g)
		}
		return a.serverReady(blade, g)
	}
	return false, "not a guest of this blade"
}

func (a *Agent) heldBack(name policy.GuestName) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.waiting {
		if w.Step.Guest == string(name) && w.Step.Subsystem != "director" {
			return w.Step.Object + ": " + w.Step.Reason + w.Error
		}
	}
	return ""
}

func (a *Agent) directorReady(g policy.Guest) (bool, string) {
	answer, ok := a.directors.last(g.Name)
	announce := g.Balancer.Announce
	switch {
	case !ok || answer.seen.IsZero():
		return false, "its helper does not answer yet"
	case !answer.inForce:
		return false, "its helper has not taken its state yet"
	case answer.status.Error != "":
		return false, "its helper says: " + answer.status.Error
	case announce.OSPF == nil && announce.BGP == nil:
		return true, "answers; it announces nothing (announce: is not set)"
	}
	known := answer.status.Announce
	for _, r := range announce.Routers {
		if r.Is4() && known.Full4 == 0 || r.Is6() && known.Full6 == 0 {
			return false, fmt.Sprintf("no router knows it yet for %s", r)
		}
	}
	return true, fmt.Sprintf("answers; adjacencies with its routers: %d IPv4, %d IPv6", known.Full4, known.Full6)
}

// serverReady looks at what the directors of this blade say of a real server: each that is to balance it must give it weight, on
// every VIP and port.
func (a *Agent) serverReady(blade policy.Blade, g policy.Guest) (bool, string) {
	places := 0
	for _, d := range blade.Guests {
		want := placesOf(d.Balancer, g.Name)
		if want == 0 {
			continue
		}
		answer, ok := a.directors.last(d.Name)
		if !ok || !answer.inForce || answer.status.Error != "" {
			return false, string(d.Name) + " has not taken it up yet"
		}
		have, missing := weighted(answer.status, g.Name)
		if missing != "" {
			return false, string(d.Name) + " gives it no weight: " + missing
		}
		if have < want {
			return false, fmt.Sprintf("%s balances it on %d of %d VIP ports", d.Name, have, want)
		}
		places += have
	}
	if places == 0 {
		return true, "runs; no director of this blade balances it"
	}
	return true, fmt.Sprintf("in rotation on %d VIP ports", places)
}

// placesOf counts the VIP ports on which a balancer is to send to a guest in ordinary times.
func placesOf(b *policy.Balancer, name policy.GuestName) int {
	n := 0
	if b == nil {
		return 0
	}
	for _, v := range b.Services {
		for _, d := range v.Destinations {
			if d.Guest == name && d.Weight > 0 && !d.Sorry {
				n++
			}
		}
	}
	return n
}

// weighted counts the VIP ports on which a director sends to a guest now, and says why not where it does not.
func weighted(s channel.Status, name policy.GuestName) (n int, missing string) {
	for _, v := range s.Services {
		for _, d := range v.Destinations {
			switch {
			case d.Guest != name:
			case d.Weight == 0:
				return n, reasonOf(d)
			default:
				n++
			}
		}
	}
	return n, ""
}

func reasonOf(d channel.DestinationStatus) string {
	if d.Reason == "" {
		return "not checked yet"
	}
	return d.Reason
}

// replaceFiles returns files with those of the same name replaced, new ones added and the ones in gone left out, in name
// order, as ReadDir would list them.
func replaceFiles(files, changed []policy.File, gone []string) []policy.File {
	byName := map[string]policy.File{}
	for _, f := range files {
		byName[f.Name] = f
	}
	for _, f := range changed {
		byName[f.Name] = f
	}
	for _, name := range gone {
		delete(byName, name)
	}
	var out []policy.File
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

// addressesOf lists a guest's addresses on this blade, for people.
func addressesOf(blade policy.Blade, name policy.GuestName) string {
	var out []string
	for _, g := range blade.Guests {
		if g.Name != name {
			continue
		}
		for _, p := range g.Ports {
			for _, addr := range p.Addresses {
				out = append(out, p.Interface+" "+addr.String())
			}
		}
	}
	return strings.Join(out, ", ")
}
