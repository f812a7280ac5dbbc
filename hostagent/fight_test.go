package hostagent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
)

// held lets a stage of the world obey the agent's fights, as the real ones do.
func held(a *Agent, stage func(context.Context, *pass) (work, error)) func(context.Context, *pass) (work, error) {
	return func(ctx context.Context, p *pass) (work, error) {
		w, err := stage(ctx, p)
		for i, s := range w.steps {
			if why := a.fights.held(s, time.Now()); why != "" {
				w.steps[i], w.apply = blocked(s, why), nil
			}
		}
		return w, err
	}
}

// kindsOf counts the journal's entries by kind.
func kindsOf(a *Agent) map[api.EntryKind]int {
	entries, _ := a.Events(0)
	count := map[api.EntryKind]int{}
	for _, e := range entries {
		count[e.Kind]++
	}
	return count
}

// TestAStrangerIsRepairedThenFought undoes the agent's work ten times a second for ten minutes, then stops.
func TestAStrangerIsRepairedThenFought(t *testing.T) {
	for _, c := range []struct {
		subsystem     string
		atLeast, most int           // repairs in ten minutes
		longest       time.Duration // that the stranger has his way
	}{
		{"links", 10, 25, lastSpace + 2*time.Second},
		{"filter", 500, 1250, 2 * filterSpace},
	} {
		t.Run(c.subsystem, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, w := t.TempDir(), &world{subsystem: c.subsystem}
				writePolicy(t, dir)
				a := trialAgent(t, dir, w)
				a.order = []stage{{c.subsystem, held(a, w.stage)}}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- a.Run(ctx) }()
				time.Sleep(10 * time.Second)
				before := w.made()
				longest, since := time.Duration(0), time.Now()
				for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					if w.undo() {
						since = time.Now()
					}
					a.Wake()
					longest = max(longest, time.Since(since))
				}
				repairs := w.made() - before
				if repairs < c.atLeast || repairs > c.most {
					t.Errorf("%d repairs in ten minutes, want %d to %d", repairs, c.atLeast, c.most)
				}
				if longest > c.longest {
					t.Errorf("the stranger had his way for %s, want %s at most", longest, c.longest)
				}
				if k := kindsOf(a); k[api.Fight] == 0 || k[api.Fight] > 8 || k[api.Repaired] != fightRepairs {
					t.Errorf("the journal has %v, want %d repairs, the fight, and a word when they double", k, fightRepairs)
				}
				if a.fights.count() != 1 {
					t.Errorf("%d fights are on, want 1", a.fights.count())
				}
				if w.looks() > 2*600*2 {
					t.Errorf("%d passes in ten minutes: a stranger must not cost more than two a second", w.looks())
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if s, _ := a.observed(ctx, a.wantedNow()); !s.Converged || a.fights.count() != 0 {
					t.Errorf("five quiet minutes later: converged %v, %d fights", s.Converged, a.fights.count())
				}
				stop()
				<-done
			})
		})
	}
}

// TestFewChangesAreNoFight repairs at once what somebody changes now and then.
func TestFewChangesAreNoFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), &world{}
		writePolicy(t, dir)
		a := trialAgent(t, dir, w)
		a.order = []stage{{"links", held(a, w.stage)}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Second)
		for range 20 {
			time.Sleep(20 * time.Second)
			w.undo()
			a.Wake()
			time.Sleep(time.Second)
			if w.undone() {
				t.Fatal("not repaired within a second")
			}
		}
		if k := kindsOf(a); k[api.Fight] != 0 || k[api.Repaired] != 20 {
			t.Errorf("the journal has %v, want 20 repairs and no fight", k)
		}
		stop()
		<-done
	})
}

func TestARevisionsStepsAreNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), &world{refuse: "till"}
		writePolicy(t, dir)
		a := trialAgent(t, dir, w)
		for _, services := range [][]string{nil, {"shop"}, {"shop", "till"}} {
			writePolicy(t, dir, services...)
			_ = a.Apply(t.Context(), api.ApplyRequest{}, silent)
		}
		if k := kindsOf(a); k[api.Repaired] != 0 || k[api.Applied] != 2 || k[api.IsWaiting] != 1 {
			t.Errorf("the journal has %v, want two steps of revisions, one that waited, no repair", k)
		}
	})
}

func director2(weights ...int) channel.Status {
	s := channel.ServiceStatus{Service: "www", Protocol: policy.TCP, Port: 80, Up: true, Announced: true}
	for i, w := range weights {
		s.Destinations = append(s.Destinations, channel.DestinationStatus{Guest: policy.GuestName(fmt.Sprintf("www-%d", i)), Weight: w, Reason: "refused"})
	}
	return channel.Status{Services: []channel.ServiceStatus{s}}
}

// unheard is one whose first real server is well and not heard.
func unheard(s channel.Status) channel.Status {
	s.Services[0].Destinations[0].Up, s.Services[0].Destinations[0].Unheard = true, true
	return s
}

func well(s channel.Status) channel.Status {
	s.Services[0].Destinations[0].Up = true
	return s
}

func TestRotationSaysWhatChanged(t *testing.T) {
	for _, c := range []struct {
		before, after channel.Status
		want          string
	}{
		{director2(100, 0), director2(100, 0), ""},
		{director2(100, 0), director2(0, 100), "www at invalid IP 80/tcp: www-0 has weight 0, had 100: refused / www at invalid IP 80/tcp: www-1 has weight 100, had 0"},
		{director2(0), unheard(director2(0)), "www at invalid IP 80/tcp: www-0 is well and not heard from the VIP"},
		{unheard(director2(0)), unheard(director2(0)), ""},
		{unheard(director2(0)), well(director2(100)), "www at invalid IP 80/tcp: www-0 is well and heard from the VIP again / www at invalid IP 80/tcp: www-0 has weight 100, had 0"},
		{unheard(director2(0)), director2(0), ""}, // it is down
		{holding("192.0.2.10"), holding("192.0.2.11"), "has VIP 192.0.2.11 now / has VIP 192.0.2.10 no more"},
		{channel.Status{}, director2(), "www at invalid IP 80/tcp is up / www at invalid IP 80/tcp is announced"},
	} {
		if got := strings.Join(rotation(c.before, c.after), " / "); got != c.want {
			t.Errorf("rotation = %q, want %q", got, c.want)
		}
	}
}

// holding is the word of a director that has these VIPs by VRRP.
func holding(vips ...string) channel.Status {
	s := channel.Status{Announce: channel.AnnounceStatus{Protocol: "vrrp", Daemons: []channel.DaemonStatus{{Name: "keepalived", Alive: true}}}}
	for _, v := range vips {
		s.Announce.Holds = append(s.Announce.Holds, netip.MustParseAddr(v))
	}
	return s
}

// TestADirectorOfAPairIsReady: it is when its daemon runs, whether it has VIPs or the other one.
func TestADirectorOfAPairIsReady(t *testing.T) {
	dead := holding()
	dead.Announce.Daemons[0].Alive = false
	for _, c := range []struct {
		status channel.Status
		ready  bool
		why    string
	}{
		{holding("192.0.2.10"), true, "answers; VIPs that it has by VRRP: 1"},
		{holding(), true, "answers; VIPs that it has by VRRP: 0"},
		{dead, false, "its VRRP does not run yet"},
		{channel.Status{}, false, "its VRRP does not run yet"},
	} {
		if ready, why := pairReady(c.status.Announce); ready != c.ready || why != c.why {
			t.Errorf("%t, %q, want %t, %q", ready, why, c.ready, c.why)
		}
	}
}

// TestADirectorWithoutVRRPSaysSo: one whose image is older than its policy has no daemon for it, which its status must say.
func TestADirectorWithoutVRRPSaysSo(t *testing.T) {
	pair := policy.Announce{VRRP: &policy.VRRP{Priority: 100}}
	for _, c := range []struct {
		wanted  policy.Announce
		status  channel.Status
		inForce bool
		want    string
	}{
		{pair, channel.Status{}, true, "its VRRP does not run yet"},
		{pair, channel.Status{}, false, ""}, // which status says by itself
		{pair, holding(), true, ""},
		{pair, channel.Status{Error: "no"}, true, "no"},
		{policy.Announce{}, channel.Status{}, true, ""},
	} {
		if got := directorStatus(c.wanted, directorAnswer{status: c.status, inForce: c.inForce}, true).Error; got != c.want {
			t.Errorf("%+v: %q, want %q", c.status, got, c.want)
		}
	}
}

// TestAChatteringDirectorDoesNotFillTheJournal says something new at each question for ten minutes.
func TestAChatteringDirectorDoesNotFillTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := trialAgent(t, t.TempDir(), &world{})
		c := &conversation{}
		var many []int
		for i := range 100 {
			many = append(many, i+1)
		}
		for i := range 1200 {
			status := director2(i)
			if i%2 == 0 {
				status = director2(many...)
			}
			a.helpers.tell(c, "d1", status, time.Now())
			time.Sleep(helperPoll)
		}
		if n := kindsOf(a)[api.Rotation]; n == 0 || n > 20*(rotationLines+1) {
			t.Errorf("%d entries in ten minutes", n)
		}
	})
}

// TestARestartedAgentTellsNoOldNews: what a director that was there before the agent says first is no change; what it says next is one. A
// director that came after the agent has changed something by its first word.
func TestARestartedAgentTellsNoOldNews(t *testing.T) {
	for name, c := range map[string]struct {
		uptime time.Duration
		first  bool
	}{"a director that was there before": {time.Hour, false}, "a new one": {time.Second, true}} {
		t.Run(name, func(t *testing.T) {
			a, now := trialAgent(t, t.TempDir(), &world{}), time.Now()
			d := &conversation{silence: silence{began: now.Add(-time.Minute)}}
			say := func(status channel.Status) int {
				before := kindsOf(a)[api.Rotation]
				status.Uptime, now = c.uptime, now.Add(helperPoll)
				a.helpers.tell(d, "d1", status, now)
				return kindsOf(a)[api.Rotation] - before
			}
			if n := say(director2(100)); (n > 0) != c.first {
				t.Errorf("%d entries of the first word", n)
			}
			now = now.Add(time.Minute)
			if say(director2(0)) == 0 {
				t.Error("no entry of a weight that went")
			}
			now = now.Add(time.Minute)
			moved := director2(0)
			moved.Announce = holding("192.0.2.10").Announce
			if say(moved) == 0 {
				t.Error("no entry of a VIP that came by VRRP")
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	dir, w := t.TempDir(), &world{}
	writePolicy(t, dir)
	a := trialAgent(t, dir, w)
	applied(t, a, 0)
	a.meters.drift.found(plan.Step{Subsystem: "links", Object: "bridge br120"})
	a.meters.drift.repaired(plan.Step{Subsystem: "links", Object: "bridge br120"})
	answer := httptest.NewRecorder()
	a.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("status %d: %s", answer.Code, answer.Body)
	}
	// Times and the process's own figures change from run to run.
	changing := regexp.MustCompile(`(?m)^(bladenet_(?:reconcile_seconds_(?:bucket|sum).*|cpu_seconds_total|peak_memory_bytes|goroutines)) .*$`)
	golden.Check(t, "metrics.txt", changing.ReplaceAllString(answer.Body.String(), "$1 …"))
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), &world{}
		writePolicy(t, dir)
		a := trialAgent(t, dir, w)
		ready := 0
		a.cfg.Ready = func() { ready++ }
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		ask := func() int {
			answer := httptest.NewRecorder()
			a.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			return answer.Code
		}
		time.Sleep(time.Hour)
		if code := ask(); code != http.StatusOK || ready != 1 {
			t.Errorf("healthz = %d, ready %d times; want 200 and once", code, ready)
		}
		stuck := make(chan struct{})
		a.passing.Lock()
		a.order = []stage{{"links", func(context.Context, *pass) (work, error) { <-stuck; return work{}, errors.New("was stuck") }}}
		a.passing.Unlock()
		a.Wake()
		time.Sleep(standstill + time.Minute)
		if code := ask(); code != http.StatusServiceUnavailable {
			t.Errorf("healthz of a loop that stands still = %d, want 503", code)
		}
		close(stuck)
		stop()
		<-done
	})
}

func TestEventsAreStreamed(t *testing.T) {
	dir, w := t.TempDir(), &world{}
	writePolicy(t, dir)
	a := trialAgent(t, dir, w)
	l, err := Listen(dir + "/s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- Serve(ctx, l, a.Handler()) }()
	client := api.NewClient(dir + "/s")
	got := make(chan api.Entry, 100)
	ended := make(chan error)
	go func() {
		ended <- client.Events(ctx, api.EventsRequest{Follow: true}, func(e api.Entry) error { got <- e; return nil })
	}()
	applied(t, a, 0)
	if e := <-got; e.Kind != api.Revised || e.Number != 1 {
		t.Errorf("first entry %+v, want revision 1", e)
	}
	var there []api.Entry
	if err := client.Events(ctx, api.EventsRequest{After: 1}, func(e api.Entry) error { there = append(there, e); return nil }); err != nil || len(there) != 1 || there[0].Kind != api.Applied {
		t.Errorf("entries after 1: %+v, %v", there, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("a stream that its reader ended: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
