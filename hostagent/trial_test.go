package hostagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
	"github.com/bladenet/bladenet/policy/plan"
)

// world stands for everything that passes change: it holds the names of the services that the blade has, and refuses some.
type world struct {
	mu     sync.Mutex
	has    string
	refuse string // a world with this service cannot be made
	passes int    // that tried to change it
	looked int

	subsystem string // whose it is; links where empty
}

// undo is a stranger's work; true when there was something to undo.
func (w *world) undo() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.has
	w.has = "a stranger's"
	return was != w.has
}

func (w *world) undone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.has == "a stranger's"
}

func (w *world) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passes
}

func (w *world) looks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looked
}

func servicesOf(b policy.Blade) string {
	var names []string
	for _, s := range b.Services {
		names = append(names, string(s.Name))
	}
	return strings.Join(names, " ")
}

func (w *world) stage(_ context.Context, p *pass) (work, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	want := servicesOf(p.blade)
	if want == w.has {
		return work{}, nil
	}
	steps := []plan.Step{{Subsystem: cmp.Or(w.subsystem, "links"), Verb: plan.Update, Object: "world", Detail: []string{w.has + " -> " + want}}}
	return work{steps: steps, apply: func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.passes++
		if w.refuse != "" && strings.Contains(want, w.refuse) {
			return errors.New("no room")
		}
		w.has = want
		return nil
	}}, nil
}

// noLinks and silentFilter are sources of events that have none; the filter has counted a little.
type (
	noLinks      struct{ Links }
	silentFilter struct{ Filter }
)

func (silentFilter) Counters(context.Context) (nft.Counters, error) {
	spoofed := map[filter.Reason]nft.Counter{filter.SpoofedMAC: {Packets: 3}}
	return nft.Counters{Reasons: spoofed, Ports: map[string]map[filter.Reason]nft.Counter{"www-1.1": spoofed}, Rules: map[string]nft.Counter{"admin": {Packets: 7}}}, nil
}

func (silentFilter) Features(context.Context) error { return nil }

func (silentFilter) VIPConntrack(context.Context, []netip.Addr) (int, error) { return 0, nil }

func (noLinks) Watch(ctx context.Context, _ func()) error      { <-ctx.Done(); return nil }
func (silentFilter) Watch(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }
func (noLinks) Observe(context.Context) (bridges.State, error) { return bridges.State{}, nil }

// trialAgent returns an agent of a world, whose policy folder and revisions are in dir. Its passes begin when it is asked to.
func trialAgent(t *testing.T, dir string, w *world) *Agent {
	t.Helper()
	a, err := New(Config{
		Blade: "lame-l1", Policy: filepath.Join(dir, "policy"), State: dir, Log: slog.New(slog.DiscardHandler), Links: noLinks{}, Filter: silentFilter{},
		Dial: func(context.Context, uint32) (*channel.Client, error) { return nil, errors.New("no director here") },
	})
	if err != nil {
		t.Fatal(err)
	}
	a.order = []stage{{"links", w.stage}}
	a.storeLost = noLinks{}.Watch // a file that is read keeps the time of a test from going on
	a.life = t.Context()
	return a
}

// firstRevision returns an agent of a world that is as its first revision says, and the folder of its policy.
func firstRevision(t *testing.T, w *world) (a *Agent, same *world, dir string) {
	t.Helper()
	dir = t.TempDir()
	writePolicy(t, dir)
	a = trialAgent(t, dir, w)
	applied(t, a, 0)
	return a, w, dir
}

// writePolicy makes the demo's fleet the policy folder, with services of these names beside its own.
func writePolicy(t *testing.T, dir string, services ...string) {
	t.Helper()
	files, err := policy.ReadDir("../test/fleets/one-blade")
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "policy")
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	text := "services:\n"
	for i, name := range services {
		text += fmt.Sprintf("  %s: {zone: public, vips: [203.0.113.%d], ports: [80/tcp]}\n", name, 100+i)
	}
	if len(services) > 0 {
		files = append(files, policy.File{Name: "z.yaml", Data: []byte(text)})
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(f.Name)), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func silent(api.Event) {}

func applied(t *testing.T, a *Agent, confirm time.Duration) {
	t.Helper()
	if err := a.Apply(t.Context(), api.ApplyRequest{Confirm: confirm}, silent); err != nil {
		t.Fatal(err)
	}
}

// states lists the states of the revisions on disk.
func states(t *testing.T, a *Agent) string {
	t.Helper()
	list, err := a.Revisions()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range list.Revisions {
		out = append(out, fmt.Sprintf("%d %s", r.Number, r.State))
	}
	return strings.Join(out, ", ")
}

func expectWorld(t *testing.T, a *Agent, w *world, has, revisions string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := states(t, a); w.has != has || got != revisions {
		t.Errorf("the world has %q and revisions are %q; want %q and %q", w.has, got, has, revisions)
	}
}

func TestAConfirmedRevisionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w, dir := firstRevision(t, &world{})
		writePolicy(t, dir, "shop")
		applied(t, a, time.Minute)
		expectWorld(t, a, w, "shop www", "1 followed, 2 on trial")
		if err := a.Apply(t.Context(), api.ApplyRequest{}, silent); err == nil || !strings.Contains(err.Error(), "bladectl confirm") {
			t.Errorf("an apply during the trial = %v, want a refusal that names the way out", err)
		}
		if _, err := a.Confirm(1); err == nil {
			t.Error("revision 1 was confirmed, which is not on trial")
		}
		time.Sleep(59 * time.Second)
		a.expire(t.Context())
		if n, err := a.Confirm(0); n != 2 || err != nil {
			t.Errorf("Confirm = %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		a.expire(t.Context())
		expectWorld(t, trialAgent(t, dir, w), w, "shop www", "1 followed, 2 in force")
		if _, err := a.Confirm(0); err == nil || !strings.Contains(err.Error(), "nothing waits") {
			t.Errorf("a second Confirm = %v", err)
		}
	})
}

func TestNobodyConfirmsAndTheLoopReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), &world{}
		writePolicy(t, dir)
		a := trialAgent(t, dir, w)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Second)
		writePolicy(t, dir, "shop")
		applied(t, a, 2*time.Minute)
		time.Sleep(119 * time.Second)
		synctest.Wait()
		expectWorld(t, a, w, "shop www", "1 followed, 2 on trial")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		expectWorld(t, a, w, "www", "1 followed, 2 returned from, 3 in force")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTheWindowOutlivesTheAgent(t *testing.T) {
	for _, c := range []struct {
		away time.Duration
		has  string
		list string
	}{
		{30 * time.Second, "shop www", "1 followed, 2 on trial"},
		{time.Hour, "www", "1 followed, 2 returned from, 3 in force"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, w, dir := firstRevision(t, &world{})
			writePolicy(t, dir, "shop")
			applied(t, a, 2*time.Minute)
			time.Sleep(c.away) // the agent is dead
			b := trialAgent(t, dir, w)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- b.Run(ctx) }()
			synctest.Wait()
			expectWorld(t, b, w, c.has, c.list)
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			expectWorld(t, b, w, "www", "1 followed, 2 returned from, 3 in force")
			stop()
			<-done
		})
	}
}

func TestARevisionThatDoesNotVerifyIsReturnedFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w, dir := firstRevision(t, &world{refuse: "shop"})
		writePolicy(t, dir, "shop")
		begin := time.Now()
		err := a.Apply(t.Context(), api.ApplyRequest{}, silent)
		if err == nil || !strings.Contains(err.Error(), "does not verify") || !strings.Contains(err.Error(), "no room") {
			t.Errorf("Apply = %v, want that it does not verify, and why", err)
		}
		if took := time.Since(begin); took < verifyTimeout || took > 3*verifyTimeout {
			t.Errorf("gave up after %s", took)
		}
		if w.passes > 12 {
			t.Errorf("tried %d times: that is a loop", w.passes)
		}
		expectWorld(t, a, w, "www", "1 followed, 2 returned from, 3 in force")
	})
}

// TestWhatStoodInTheWayBeforeIsNotTheRevisionsFault applies while another part of the blade is blocked and cannot be read.
func TestWhatStoodInTheWayBeforeIsNotTheRevisionsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), &world{}
		writePolicy(t, dir)
		a := trialAgent(t, dir, w)
		a.order = append(a.order,
			stage{"guests", func(context.Context, *pass) (work, error) {
				return work{steps: []plan.Step{{Subsystem: "guests", Verb: plan.Blocked, Object: "domain d1", Reason: "libvirtd is down"}}}, nil
			}},
			stage{"inside", func(context.Context, *pass) (work, error) { return work{}, errors.New("no such namespace") }})
		_ = a.Apply(t.Context(), api.ApplyRequest{}, silent) // the first has nothing to return to
		writePolicy(t, dir, "shop")
		applied(t, a, 0)
		expectWorld(t, a, w, "shop www", "1 followed, 2 in force")
	})
}

// deadly is a stage whose apply ends the agent.
func deadly(kill func()) func(context.Context, *pass) (work, error) {
	return func(context.Context, *pass) (work, error) {
		steps := []plan.Step{{Subsystem: "links", Verb: plan.Update, Object: "world"}}
		return work{steps: steps, apply: func(context.Context) error { kill(); return context.Canceled }}, nil
	}
}

// TestAKilledApplyIsFinished ends the agent in the middle of an apply, which leaves a trial that has not verified.
func TestAKilledApplyIsFinished(t *testing.T) {
	for _, c := range []struct {
		name, refuse, has, list string
		restarts                int
	}{
		{"well", "", "shop www", "1 followed, 2 in force", 1},
		{"and does not verify", "shop", "www", "1 followed, 2 returned from, 3 in force", 1},
		{"and kills the agent each time", "", "www", "1 followed, 2 returned from, 3 in force", mostTries + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, w := t.TempDir(), &world{}
				writePolicy(t, dir)
				a := trialAgent(t, dir, w)
				applied(t, a, 0)
				writePolicy(t, dir, "shop")
				w.refuse = c.refuse
				dying, kill := context.WithCancel(t.Context())
				a.order = []stage{{"links", deadly(kill)}}
				if err := a.Apply(dying, api.ApplyRequest{}, silent); err == nil {
					t.Fatal("the apply was to be killed")
				}
				var b *Agent
				for i := range c.restarts {
					b = trialAgent(t, dir, w)
					ctx, again := context.WithCancel(t.Context())
					if i < c.restarts-1 {
						b.order = []stage{{"links", deadly(again)}}
					}
					b.resume(ctx)
					again()
				}
				expectWorld(t, b, w, c.has, c.list)
			})
		})
	}
}

func TestRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), &world{}
		a := (*Agent)(nil)
		for i, services := range [][]string{nil, {"shop"}, {"shop", "till"}} {
			writePolicy(t, dir, services...)
			if i == 0 {
				a = trialAgent(t, dir, w)
			}
			applied(t, a, 0)
		}
		back := func(number int) error { return a.Rollback(t.Context(), api.RollbackRequest{Revision: number}, silent) }
		if err := back(0); err != nil {
			t.Fatal(err)
		}
		expectWorld(t, a, w, "shop www", "1 followed, 2 followed, 3 returned from, 4 in force")
		if err := back(0); err != nil { // not to 3, which somebody left, and not to 2, which is the same
			t.Fatal(err)
		}
		expectWorld(t, a, w, "www", "1 followed, 2 followed, 3 returned from, 4 returned from, 5 in force")
		if err := back(0); err != nil { // 2 is good, and not the same
			t.Fatal(err)
		}
		expectWorld(t, a, w, "shop www", "1 followed, 2 followed, 3 returned from, 4 returned from, 5 returned from, 6 in force")
		if err := back(9); err == nil {
			t.Error("rolled back to a revision that is not there")
		}
		if err := back(2); err == nil || !strings.Contains(err.Error(), "nothing to roll back") {
			t.Errorf("rollback to the same files = %v", err)
		}
		if err := a.Rollback(t.Context(), api.RollbackRequest{Revision: 3, Confirm: time.Minute}, silent); err != nil {
			t.Fatal(err)
		}
		if w.has != "shop till www" {
			t.Errorf("the world has %q after a rollback to 3", w.has)
		}
		if err := back(0); err != nil { // ends the trial
			t.Fatal(err)
		}
		if w.has != "shop www" {
			t.Errorf("the world has %q after the end of the trial", w.has)
		}
	})
}

func TestSpawnAndDestroyWaitForATrialAndForTheFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w, dir := firstRevision(t, &world{})
		spawn := func() error {
			return a.Spawn(t.Context(), api.SpawnRequest{Role: policy.RoleRealServer, Names: []policy.GuestName{"www-1"}, Services: []policy.ServiceName{"www"}, Image: "web"}, silent)
		}
		destroy := func() error {
			return a.Destroy(t.Context(), api.DestroyRequest{Names: []policy.GuestName{"www-1"}}, silent)
		}
		writePolicy(t, dir, "shop")
		for _, do := range []func() error{spawn, destroy} {
			if err := do(); err == nil || !strings.Contains(err.Error(), "not in force") {
				t.Errorf("with an edited folder = %v, want a refusal", err)
			}
		}
		applied(t, a, time.Minute)
		for _, do := range []func() error{spawn, destroy} {
			if err := do(); err == nil || !strings.Contains(err.Error(), "waits to be confirmed") {
				t.Errorf("during a trial = %v, want a refusal", err)
			}
		}
		expectWorld(t, a, w, "shop www", "1 followed, 2 on trial")
	})
}

// fullDisk is a history that can only be read.
type fullDisk struct{ history }

var errNoSpace = errors.New("no space left on device")

func (fullDisk) Save(revision.Revision) (revision.Revision, error) {
	return revision.Revision{}, errNoSpace
}
func (fullDisk) Update(revision.Revision) error { return errNoSpace }

func TestAFullDiskDoesNotStopTheReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w, dir := firstRevision(t, &world{})
		writePolicy(t, dir, "shop")
		applied(t, a, time.Minute)
		time.Sleep(2 * time.Minute)
		a.revisions = fullDisk{a.revisions}
		a.expire(t.Context())
		if got := a.wantedNow().revision.Number; got != 1 || w.has != "www" {
			t.Errorf("revision %d, world %q; want 1 and www", got, w.has)
		}
		b := trialAgent(t, dir, w)
		b.expire(t.Context())
		expectWorld(t, b, w, "www", "1 followed, 2 returned from, 3 in force")
	})
}

func TestPlanBetweenRevisions(t *testing.T) {
	a, w, dir := firstRevision(t, &world{})
	writePolicy(t, dir, "shop")
	applied(t, a, 0)
	there, err := a.Plan(t.Context(), api.PlanRequest{From: 1, Revision: 2})
	if err != nil {
		t.Fatal(err)
	}
	back, err := a.Plan(t.Context(), api.PlanRequest{From: 2, Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	same, err := a.Plan(t.Context(), api.PlanRequest{From: 2})
	if err != nil || len(same.Steps) > 0 {
		t.Errorf("from 2 to what is in force: %v, %v; want nothing", same.Steps, err)
	}
	if len(there.Steps) == 0 || len(there.Steps) != len(back.Steps) {
		t.Errorf("%d steps there, %d back", len(there.Steps), len(back.Steps))
	}
	if w.passes != 2 {
		t.Errorf("planning changed the world: %d passes", w.passes)
	}
}
