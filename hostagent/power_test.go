package hostagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// TestStoppedOutlivesTheAgent: what an operator stopped is stopped after a restart, and what was started is not.
func TestStoppedOutlivesTheAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stopped.json")
	first, err := openStopped(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []policy.GuestName{"www-1", "www-2"} {
		if err := first.change(name, &stop{Drained: name == "www-2"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.change("www-1", nil); err != nil {
		t.Fatal(err)
	}
	again, err := openStopped(path)
	if err != nil {
		t.Fatal(err)
	}
	held := map[policy.GuestName]guests.Hold{}
	again.hold(held)
	if diff := cmp.Diff(map[policy.GuestName]guests.Hold{"www-2": {Off: true, Reason: byOperator}}, held); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if how, ok := again.get("www-2"); !ok || !how.Drained {
		t.Errorf("www-2: %+v, %t; want one that was drained for it", how, ok)
	}
}

// TestStopsThatWereCutOff: a guest that is drained for a stop still runs, and what an agent must finish is known after its end.
func TestStopsThatWereCutOff(t *testing.T) {
	s, err := openStopped(filepath.Join(t.TempDir(), "stopped.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, how := range map[policy.GuestName]stop{
		"plain": {}, "drained": {Drained: true}, "draining": {Drained: true, Draining: true}, "restarted": {Restart: true, Reclone: true},
	} {
		if err := s.change(name, &how); err != nil {
			t.Fatal(err)
		}
	}
	again, err := openStopped(s.path)
	if err != nil {
		t.Fatal(err)
	}
	held := map[policy.GuestName]guests.Hold{}
	again.hold(held)
	want := map[policy.GuestName]guests.Hold{"plain": {Off: true, Reason: byOperator}, "drained": {Off: true, Reason: byOperator}, "restarted": {Off: true, Reason: byOperator, Reclone: true}}
	if diff := cmp.Diff(want, held); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	left := map[policy.GuestName]stop{"draining": {Drained: true, Draining: true}, "restarted": {Restart: true, Reclone: true}}
	if diff := cmp.Diff(left, again.unfinished()); diff != "" {
		t.Errorf("unfinished (-want +got):\n%s", diff)
	}
}

// TestABladeWithAnUnfinishedRestartHasNotConverged: not before the pass that starts the guest.
func TestABladeWithAnUnfinishedRestartHasNotConverged(t *testing.T) {
	a, _, _ := firstRevision(t, &world{})
	converged := func(when string, want bool) {
		t.Helper()
		if s, err := a.Status(t.Context()); err != nil || s.Converged != want {
			t.Errorf("%s: converged %t, want %t (%v)", when, s.Converged, want, err)
		}
	}
	converged("before", true)
	if err := a.stopped.change("www-1", &stop{Restart: true}); err != nil {
		t.Fatal(err)
	}
	converged("in the middle of a restart", false)
	a.finishStops(t.Context())
	converged("let go, and not started yet", false)
	if err := a.pass(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	converged("after the pass that starts it", true)
}

// TestAStartNotesTheDrainThatItTakesBack: until that is done, for an agent that dies meanwhile would leave the guest drained for ever. A stop that
// comes between the two stays.
func TestAStartNotesTheDrainThatItTakesBack(t *testing.T) {
	const name policy.GuestName = "www-1"
	a, _, dir := firstRevision(t, &world{})
	one, err := policy.Allocate(mustLoad(t, dir), policy.SpawnRequest{
		Role: policy.RoleRealServer, Name: name, Blade: "lame-l1", Services: []policy.ServiceName{"www"}, Image: "web",
	})
	if err != nil {
		t.Fatal(err)
	}
	entry := filepath.Join(dir, "policy", policy.GuestFile(name))
	if err := os.WriteFile(entry, one.Data, 0o644); err != nil {
		t.Fatal(err)
	}
	applied(t, a, 0)
	if err := a.Stop(t.Context(), api.PowerRequest{Name: name, Drain: time.Millisecond}, func(api.Event) {}); err != nil {
		t.Fatal(err)
	}
	drained := func() bool {
		text, err := os.ReadFile(entry)
		return err == nil && strings.Contains(string(text), "drain: true")
	}
	if how, _ := a.stopped.get(name); !how.Drained || !drained() {
		t.Fatalf("stopped as %+v, drained %t", how, drained())
	}
	noted := stop{Drained: true, Draining: true}
	stranger := filepath.Join(dir, "policy", "z-stranger.yaml") // the drain cannot be taken back beside a change that is not in force
	if err := os.WriteFile(stranger, []byte("services: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context(), api.PowerRequest{Name: name}, func(api.Event) {}); err == nil {
		t.Error("a start whose drain cannot be taken back says nothing")
	}
	if how, ok := a.stopped.get(name); !ok || how != noted {
		t.Errorf("noted %+v, want %+v", how, noted)
	}
	if err := os.Remove(stranger); err != nil {
		t.Fatal(err)
	}
	a.finishStops(t.Context()) // as the next agent does
	if how, ok := a.stopped.get(name); ok || drained() {
		t.Errorf("noted %+v, drained %t", how, drained())
	}
	if err := a.stopped.change(name, &stop{}); err != nil {
		t.Fatal(err)
	}
	if err := a.stopped.forget(name, noted); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.stopped.get(name); !ok {
		t.Error("a start that ends forgets a stop that came after it")
	}
}

// mustLoad is the policy folder of dir.
func mustLoad(t *testing.T, dir string) *policy.Fleet {
	t.Helper()
	files, err := policy.ReadDir(filepath.Join(dir, "policy"))
	if err != nil {
		t.Fatal(err)
	}
	fleet, found := policy.Load(files)
	if found.HasErrors() {
		t.Fatal(found)
	}
	return fleet
}

// TestStoppedThatCannotBeRead holds nobody and says so; a change that cannot be written changes nothing.
func TestStoppedThatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stopped.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openStopped(path)
	if err == nil {
		t.Error("a damaged file is read")
	}
	s.path = filepath.Join(path, "below-a-file")
	if err := s.change("www-1", &stop{}); err == nil {
		t.Error("a change that cannot be written is taken")
	}
	if _, ok := s.get("www-1"); ok {
		t.Error("what was not written holds")
	}
}
