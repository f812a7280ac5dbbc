package hostagent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
)

// byOperator is why a guest is off that somebody stopped.
const byOperator = "an operator stopped it"

// stopped is the guests that an operator stopped. It is kept on disk, so that neither the agent's start nor the blade's starts one.
type stopped struct {
	path string

	mu     sync.Mutex
	guests map[policy.GuestName]stop
}

// stop is how one was stopped.
type stop struct {
	Drained  bool `json:"drained,omitempty"`  // for the stop: its start takes that back
	Reclone  bool `json:"reclone,omitempty"`  // it comes back on the newest build of its image
	Restart  bool `json:"restart,omitempty"`  // it comes back at once: an agent that finds it so starts it
	Draining bool `json:"draining,omitempty"` // it runs, before its stop or after its start: an agent that finds it so takes the drain back
}

// openStopped reads the file. One that cannot be read holds nobody, and is an error beside it.
func openStopped(path string) (*stopped, error) {
	s := &stopped{path: path, guests: map[policy.GuestName]stop{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s.guests)
	}
	if err != nil {
		return s, fmt.Errorf("read stopped guests: %w", err)
	}
	return s, nil
}

// get says whether and how a guest was stopped.
func (s *stopped) get(name policy.GuestName) (stop, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how, ok := s.guests[name]
	return how, ok
}

// change notes that a guest is stopped, or with nil that it is not, on disk first.
func (s *stopped) change(name policy.GuestName, how *stop) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[policy.GuestName]stop{}
	for n, h := range s.guests {
		if n != name {
			next[n] = h
		}
	}
	if how != nil {
		next[name] = *how
	}
	if err := s.write(next); err != nil {
		return err
	}
	s.guests = next
	return nil
}

// forget ends a guest's note, unless somebody has stopped the guest since.
func (s *stopped) forget(name policy.GuestName, noted stop) error {
	if now, ok := s.get(name); !ok || now != noted {
		return nil
	}
	return s.change(name, nil)
}

// write puts a list on disk. The caller holds mu.
func (s *stopped) write(list map[policy.GuestName]stop) error {
	data, err := json.Marshal(list)
	if err == nil {
		err = revision.WriteFile(s.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save stopped guests: %w", err)
	}
	return nil
}

// restore writes the list anew where its file is not there any more.
func (s *stopped) restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.guests) == 0 {
		return nil
	}
	if _, err := os.Stat(s.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.write(s.guests)
}

// hold adds the stopped guests to those that must not start.
func (s *stopped) hold(held map[policy.GuestName]guests.Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, how := range s.guests {
		if how.Draining {
			continue
		}
		held[name] = guests.Hold{Off: true, Reclone: how.Reclone, Reason: byOperator}
	}
}

// unfinished are the guests whose agent ended in the middle of a restart, or while it drained them for a stop.
func (s *stopped) unfinished() map[policy.GuestName]stop {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.guests)
	maps.DeleteFunc(out, func(_ policy.GuestName, how stop) bool { return !how.Restart && !how.Draining })
	return out
}

// finishStops ends what an earlier agent began: a guest that was being restarted comes back, on the build that it was promised, and one that was
// being drained for a stop takes connections again.
func (a *Agent) finishStops(ctx context.Context) {
	left := a.stopped.unfinished()
	if len(left) == 0 {
		return
	}
	a.passing.Lock()
	_ = a.pass(ctx, nil) // stops them and makes clones anew; logged where it failed
	a.passing.Unlock()
	silent := func(api.Event) {}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		how, message := left[name], "bladed ended between its drain and its stop, or its start and the drain's end: it takes connections again"
		if how.Restart {
			message = "bladed ended while it was restarted: it is started again"
		}
		_, err := a.wantedGuest(name)
		if err == nil && how.Drained {
			err = a.setDrain(api.DrainRequest{Name: name, Undo: true}, silent)
		}
		if err = errors.Join(err, a.stopped.change(name, nil)); err != nil {
			a.log.Error("finish a restart", "guest", name, "err", err)
		}
		a.unsettle()
		a.record(api.Entry{Kind: api.Agent, Guest: string(name), Message: message})
	}
}

// Stop ends a guest and keeps it stopped, over restarts of the agent and of the blade, until Start. A real server is drained first.
func (a *Agent) Stop(ctx context.Context, r api.PowerRequest, report func(api.Event)) error {
	return a.stop(ctx, r, stop{Reclone: r.Reclone}, report)
}

func (a *Agent) stop(ctx context.Context, r api.PowerRequest, how stop, report func(api.Event)) error {
	was, err := a.wantedGuest(r.Name)
	if err != nil {
		return err
	}
	if before, already := a.stopped.get(r.Name); already {
		how.Drained = before.Drained // for the first stop
	} else if r.Drain > 0 && was.Role == policy.RoleRealServer && !was.Drained {
		how.Drained = true
		first := how
		first.Draining = true
		if err := a.stopped.change(r.Name, &first); err != nil {
			return err
		}
		a.drainBefore(ctx, r.Name, r.Drain, report)
	}
	a.passing.Lock()
	defer a.passing.Unlock()
	if err := a.stopped.change(r.Name, &how); err != nil {
		return err
	}
	return a.pass(a.life, report)
}

// Start lets a stopped guest run again and returns when it does its work.
func (a *Agent) Start(ctx context.Context, r api.PowerRequest, report func(api.Event)) error {
	if _, err := a.wantedGuest(r.Name); err != nil {
		return err
	}
	how, _ := a.stopped.get(r.Name)
	var next *stop
	if how.Drained { // for the stop: noted until it is taken back
		next = &stop{Drained: true, Draining: true}
	}
	if err := a.release(r.Name, next, report); err != nil {
		return err
	}
	if how.Drained {
		if err := a.setDrain(api.DrainRequest{Name: r.Name, Undo: true}, report); err != nil {
			return err
		}
		if err := a.stopped.forget(r.Name, *next); err != nil {
			return err
		}
	}
	return a.untilInRotation(ctx, r.Name, report)
}

// release lets a guest run, with what is noted of it from now on.
func (a *Agent) release(name policy.GuestName, next *stop, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	if err := a.stopped.change(name, next); err != nil {
		return err
	}
	a.unsettle()
	return a.pass(a.life, report)
}

// unsettle notes that more is wanted than the last pass knew: the blade is not as wanted before the next one.
func (a *Agent) unsettle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.passed = false
}

// Restart stops a guest and starts it, which is when a changed definition takes effect. Asked to reclone it restarts only a guest whose image
// has a newer build, and makes its clone anew on that one; its volumes, links and addresses stay.
func (a *Agent) Restart(ctx context.Context, r api.PowerRequest, report func(api.Event)) error {
	if r.Reclone {
		have, newer, err := a.builds(ctx, r.Name)
		if err != nil {
			return err
		}
		if newer == "" {
			report(api.Event{Message: fmt.Sprintf("%s stands on %s: no newer build of its image is in the store", r.Name, cmp.Or(have, "nothing yet"))})
			return nil
		}
		report(api.Event{Message: fmt.Sprintf("%s: %s -> %s", r.Name, have, newer)})
	}
	if err := a.stop(ctx, r, stop{Reclone: r.Reclone, Restart: true}, report); err != nil {
		return err
	}
	return a.Start(ctx, r, report)
}

// builds says which build of its image a guest stands on, and which newer one there is.
func (a *Agent) builds(ctx context.Context, name policy.GuestName) (have, newer string, err error) {
	g, err := a.wantedGuest(name)
	if err != nil {
		return "", "", err
	}
	state, err := guests.Observe(ctx, a.cfg.Drivers, a.cfg.Images, []policy.Guest{g})
	if err != nil {
		return "", "", err
	}
	if why := state.Down[g.Driver]; why != "" {
		return "", "", errors.New(why)
	}
	have, newer = state.Builds(g)
	return have, newer, nil
}

// wantedGuest returns a guest of this blade.
func (a *Agent) wantedGuest(name policy.GuestName) (policy.Guest, error) {
	for _, g := range a.wantedNow().blade.Guests {
		if g.Name == name {
			return g, nil
		}
	}
	return policy.Guest{}, fmt.Errorf("guest %s: not a guest of this blade", name)
}

// sweepStopped forgets a guest that is no more.
func (a *Agent) sweepStopped(names []policy.GuestName) {
	for _, name := range names {
		if _, ok := a.stopped.get(name); !ok {
			continue
		}
		if err := a.stopped.change(name, nil); err != nil {
			a.log.Warn("stopped guests", "guest", name, "err", err)
		}
	}
}
