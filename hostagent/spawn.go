package hostagent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
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

// Spawn writes new guests into the policy folder, makes the blade so and returns when each is in rotation. When that fails, or the
// caller goes away, all of it is undone unless the request says to keep it.
func (a *Agent) Spawn(ctx context.Context, r api.SpawnRequest, report func(api.Event)) error {
	what := "spawn " + joinNames(r.Names)
	if r.Blade == "" {
		r.Blade = a.cfg.Blade
	}
	switch {
	case r.Blade != a.cfg.Blade:
		return fmt.Errorf("%s on %s: this is %s: ask the daemon of that blade", what, r.Blade, a.cfg.Blade)
	case len(r.Names) == 0 || len(r.Names) > api.MostNames:
		return fmt.Errorf("spawn %d guests: from 1 to %d at a time", len(r.Names), api.MostNames)
	}
	a.spawning.Add(1)
	defer a.spawning.Add(-1)
	done, err := a.place(r, what, report)
	if err != nil || done {
		return err
	}
	for _, name := range r.Names {
		if err = a.untilInRotation(ctx, name, report); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			break
		}
	}
	if err == nil || r.Keep || a.life.Err() != nil { // an agent that ends leaves the blade as it is
		return err
	}
	report(api.Event{Message: fmt.Sprintf("%v: undoing", err)})
	if undo := a.undo(r.Names, report); undo != nil {
		return errors.Join(err, fmt.Errorf("undo: %w", undo))
	}
	return fmt.Errorf("spawn %w; all of it was undone", err)
}

// joinNames lists guests for a person; of many the first ones.
func joinNames(names []policy.GuestName) string {
	const shown = 4
	var out []string
	for i, name := range names {
		if i == shown && len(names) > shown+1 {
			return fmt.Sprintf("%s and %d more", strings.Join(out, ", "), len(names)-shown)
		}
		out = append(out, string(name))
	}
	return strings.Join(out, ", ")
}

// place allocates, writes the entries and brings the blade to them. Done: there is nothing to wait for.
func (a *Agent) place(r api.SpawnRequest, what string, report func(api.Event)) (done bool, err error) {
	a.passing.Lock()
	defer a.passing.Unlock()
	from, err := a.settledFolder(report)
	if err != nil {
		return false, err
	}
	entries, with, err := a.allocate(from, r, report)
	if err != nil {
		return false, err
	}
	blade, err := a.check(with, report)
	if err != nil {
		return false, err
	}
	look := &pass{blade: blade}
	if !r.DryRun {
		look.only = []string{"links", "guests"} // the only ones that refuse a guest
	}
	out := a.walk(a.life, look)
	if r.DryRun {
		for i := range out.steps {
			report(api.Event{Step: &out.steps[i]})
		}
		return true, out.err
	}
	for _, name := range r.Names {
		if err := out.allows(name); err != nil {
			return false, err
		}
	}
	written := func(e fileEdit) {
		i := slices.IndexFunc(entries, func(f policy.File) bool { return f.Name == e.Name })
		report(api.Event{Message: "policy entry " + e.Name + ": " + addressesOf(blade, r.Names[i])})
	}
	if err := a.room(); err != nil {
		return false, err
	}
	if err := a.commit(change{Edits: edits(from.files, with)}, revision.Revision{Note: what, Files: with}, blade, written, report); err != nil {
		return false, err
	}
	for _, name := range r.Names {
		a.tried(guests.Step{Name: name}, nil) // what an earlier guest of that name met is no news
	}
	// A failure of another part of the blade is not this guest's: whether it comes up is what counts.
	// The pass goes on from what was looked at: meanwhile only files were written.
	if err := a.passFrom(a.life, &pass{report: report, seen: look.seen, found: look.found}); err != nil {
		a.log.Warn("pass", "guests", joinNames(r.Names), "err", err)
	}
	return false, nil
}

// leastRoom is what must be free where clones and revisions are: a spawn that fails must be able to write that it is undone.
const leastRoom = 16 << 20

// room refuses a spawn while the disk is full.
func (a *Agent) room() error {
	var disk unix.Statfs_t
	if err := unix.Statfs(a.cfg.State, &disk); err != nil {
		return fmt.Errorf("look for room in %s: %w", a.cfg.State, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < leastRoom {
		return fmt.Errorf("%s has %s free, and %s must be: %w", a.cfg.State, guests.Size(int64(free)), guests.Size(leastRoom), unix.ENOSPC)
	}
	return nil
}

// allocate makes the entries of new guests, one after the other so that each takes addresses of its own, and the folder with them.
func (a *Agent) allocate(from folder, r api.SpawnRequest, report func(api.Event)) (entries, with []policy.File, err error) {
	with = from.files
	fleet := from.fleet
	for i, name := range r.Names {
		if i > 0 {
			var found policy.Diagnostics
			if fleet, found = a.reading.load(with); found.HasErrors() {
				return nil, nil, refuse(found, report)
			}
		}
		entry, err := policy.Allocate(fleet, policy.SpawnRequest{
			Role: r.Role, Name: name, Blade: r.Blade, Site: r.Site, Services: r.Services, Weight: r.Weight, Driver: r.Driver, Image: r.Image,
			Privileged: r.Privileged, Spare: r.Spare,
		})
		if err != nil {
			return nil, nil, err
		}
		entry.Name = filepath.Join(a.cfg.Policy, entry.Name)
		entries = append(entries, entry)
		with = replaceFiles(with, []policy.File{entry}, nil)
		if r.DryRun {
			report(api.Event{Message: "would write " + entry.Name + ":\n" + string(entry.Data)})
		}
	}
	return entries, with, nil
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

// Destroy takes guests out of the policy folder and removes all that they had. Real servers take no new connections first, for as
// long as the request says, or until those that they have have ended.
func (a *Agent) Destroy(ctx context.Context, r api.DestroyRequest, report func(api.Event)) error {
	if r.Drain > 0 {
		for _, name := range r.Names {
			a.drainBefore(ctx, name, r.Drain, report)
		}
	}
	a.passing.Lock()
	defer a.passing.Unlock()
	from, err := a.settledFolder(report)
	if err != nil {
		return err
	}
	if names := a.stillWanted(r, from.fleet); len(names) > 0 {
		if err := a.remove(from, names, "destroy "+joinNames(names), report); err != nil {
			return err
		}
	}
	return a.endVolumes(ctx, r, report)
}

// undo takes back a spawn, whatever an operator has written into the folder meanwhile.
func (a *Agent) undo(names []policy.GuestName, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	from, err := a.folder(report)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name policy.GuestName) bool {
		_, err := a.wantedGuest(name)
		return err != nil // somebody destroyed it meanwhile
	})
	if len(names) == 0 {
		return nil
	}
	return a.remove(from, names, "undo spawn of "+joinNames(names), report)
}

// remove takes guests out of the folder's files and off the blade. The caller holds passing.
func (a *Agent) remove(from folder, names []policy.GuestName, note string, report func(api.Event)) error {
	without, fleet := from.files, from.fleet
	for i, name := range names {
		if i > 0 {
			fleet, _ = a.reading.load(without) // what names a guest that is gone is found when all are
		}
		changed, gone, err := policy.RemoveGuest(without, fleet, name)
		if err != nil {
			return err
		}
		without = replaceFiles(without, changed, gone)
	}
	return a.rewrite(from, without, names, note, report)
}

// untilInRotation waits until the guest does its work: a real server has weight in every service on every director of this
// blade, a director has applied its state and its routers know it.
func (a *Agent) untilInRotation(ctx context.Context, name policy.GuestName, report func(api.Event)) error {
	ctx, cancel := context.WithTimeout(ctx, a.rotateFor)
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
		if err := a.hopeless(name); err != nil {
			return err
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
		if why := a.spares.reason(name); why != "" {
			return true, "off: " + why
		}
		if reason := a.heldBack(name); reason != "" {
			return false, reason
		}
		if err := a.failure(name); err != nil {
			return false, err.Error()
		}
		if g.Balancer != nil {
			return a.directorReady(g)
		}
		if missing := a.machineMissing(g); missing != "" {
			return false, missing
		}
		return a.serverReady(blade, g)
	}
	return false, errTakenAway.Error()
}

// errTakenAway is met when a guest is destroyed while somebody waits for it.
var errTakenAway = errors.New("not a guest of this blade any more")

// hopeless is why it makes no sense to wait for a guest: another one took it away, or there is no room for it.
func (a *Agent) hopeless(name policy.GuestName) error {
	if _, err := a.wantedGuest(name); err != nil {
		return errTakenAway
	}
	if err := a.failure(name); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}

// tried notes how the last step of a guest went. One that was started runs, which the next look may be too late to see.
func (a *Agent) tried(s guests.Step, err error) {
	a.mu.Lock()
	if a.failing == nil {
		a.failing = map[policy.GuestName]error{}
	}
	a.failing[s.Name] = err
	if err == nil {
		delete(a.failing, s.Name)
	}
	was := a.phases[s.Name]
	begins := a.phases != nil && err == nil && s.Verb == plan.Start && was != guests.Running
	if begins {
		a.phases[s.Name] = guests.Running
	}
	a.mu.Unlock()
	if begins {
		a.record(api.Entry{Kind: api.GuestIs, Guest: string(s.Name), Message: phaseOf(was) + " -> " + phaseOf(guests.Running)})
	}
}

// failure is why the last step of a guest failed.
func (a *Agent) failure(name policy.GuestName) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failing[name]
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
	answer, ok := a.helpers.last(g.Name)
	announce := g.Balancer.Announce
	switch {
	case !ok || answer.seen.IsZero():
		return false, "its helper does not answer yet"
	case !answer.inForce:
		return false, "its helper has not taken its state yet"
	case answer.status.Error != "":
		return false, "its helper says: " + answer.status.Error
	case announce.VRRP != nil:
		return pairReady(answer.status.Announce)
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

// pairReady says whether a director that announces by VRRP can take VIPs. It need not have any: the other one of its pair may.
func pairReady(known channel.AnnounceStatus) (bool, string) {
	if len(known.Daemons) == 0 || slices.ContainsFunc(known.Daemons, func(d channel.DaemonStatus) bool { return !d.Alive }) {
		return false, "its VRRP does not run yet"
	}
	return true, fmt.Sprintf("answers; VIPs that it has by VRRP: %d", len(known.Holds))
}

// machineMissing is what a real server that is a virtual machine still lacks to do its work, by its helper.
func (a *Agent) machineMissing(g policy.Guest) string {
	if g.Driver != policy.DriverKVM {
		return ""
	}
	answer, ok := a.helpers.last(g.Name)
	switch service := answer.status.Server; {
	case !ok || answer.seen.IsZero():
		return "its helper does not answer yet"
	case answer.status.Error != "":
		return "its helper says: " + answer.status.Error
	case !answer.inForce:
		return "its helper has not taken its state yet"
	case service != nil && !service.Running && service.Ended != "":
		return "its service does not run: " + service.Ended
	}
	return ""
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
		answer, ok := a.helpers.last(d.Name)
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
			if d.Guest == name && d.Weight > 0 && !d.Sorry && !d.Drained {
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
