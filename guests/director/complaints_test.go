package director

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// The names are what users of keepalived, ldirectord and MetalLB have complained of, with the numbers of the reports.

// running returns a controller whose two servers are in rotation.
func running(t *testing.T, w *world) *Controller {
	t.Helper()
	c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
	apply(t, c, state("one"))
	time.Sleep(3 * time.Second)
	synctest.Wait()
	w.happened()
	return c
}

func apply(t *testing.T, c *Controller, a channel.Apply) {
	t.Helper()
	if s, err := c.Apply(t.Context(), a); err != nil || s.Error != "" {
		t.Fatalf("apply: %+v, %v", s, err)
	}
}

// weighted is the state with another weight of the first server.
func weighted(revision string, weight int) channel.Apply {
	a := state(revision)
	a.Balancer.Services[0].Destinations[0].Weight = weight
	return a
}

func weights(w *world) map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for _, d := range w.table.Services[0].Destinations {
		out[d.Address.String()] = d.Weight
	}
	return out
}

// keepalived 1354: a reload does not change a weight. keepalived 187: a weight of 0 stays after the reload that raises it.
func TestComplaintAReloadKeepsTheOldWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := running(t, w)
		for _, change := range []struct {
			revision string
			weight   int
			line     string
		}{
			{"two", 50, "weight 100 -> 50"}, {"three", 0, "weight 50 -> 0"}, {"four", 100, "weight 0 -> 100"},
		} {
			apply(t, c, weighted(change.revision, change.weight))
			synctest.Wait()
			if got := w.happened(); len(got) != 1 || !strings.Contains(got[0], change.line) {
				t.Errorf("to weight %d: %q, want one update, %s", change.weight, got, change.line)
			}
		}
	})
}

// keepalived 1757: a server cannot have the weight 0.
func TestComplaintAWeightOfZeroIsImpossible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		apply(t, c, weighted("one", 0))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := weights(w); got["10.0.0.1"] != 0 || got["10.0.0.2"] != 100 {
			t.Errorf("weights %v, want 0 and 100", got)
		}
	})
}

// keepalived 373 and 1720: a server that was down over a reload never comes back.
func TestComplaintAServerNeverComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := running(t, w)
		for round, change := range []func(revision string) channel.Apply{
			state, // nothing changes
			func(revision string) channel.Apply { return weighted(revision, 30+len(revision)) },
			func(revision string) channel.Apply { // its check does
				a := weighted(revision, 77)
				a.Balancer.Checks[0].Interval = 2 * time.Second
				return a
			},
		} {
			w.set("a", true)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got := weights(w)["10.0.0.1"]; got != 0 {
				t.Fatalf("round %d: a dead server has weight %d", round, got)
			}
			a := change("round" + strings.Repeat("+", round))
			apply(t, c, a)
			time.Sleep(time.Second)
			w.set("a", false)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got, want := weights(w)["10.0.0.1"], a.Balancer.Services[0].Destinations[0].Weight; got != want {
				t.Errorf("round %d: it is back with weight %d, want %d", round, got, want)
			}
		}
	})
}

// keepalived 2358: a server is checked once for each VIP that it is behind.
func TestComplaintOneCheckForEachVIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var probes atomic.Int64
		c := New(Config{
			Log: slog.New(slog.DiscardHandler), Store: Store{filepath.Join(t.TempDir(), "state.json")}, Software: "test", Table: fakeTable{w}, Place: fakePlace{w}, Announcer: fakeAnnouncer{w},
			Probe: func(context.Context, policy.Check) (health.Answer, error) { probes.Add(1); return health.Answer{}, nil }, End: func(bool) {},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		a := state("one")
		for i := range 20 {
			v := a.Balancer.Services[0]
			v.Destinations = slices.Clone(v.Destinations)
			v.Port = uint16(1000 + i)
			a.Balancer.Services = append(a.Balancer.Services, v)
		}
		apply(t, c, a)
		time.Sleep(10 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := probes.Load(); n < 18 || n > 24 { // two servers, each second, with jitter
			t.Errorf("%d probes of two servers in 10 s, behind 21 services", n)
		}
	})
}

// MetalLB 312: a VIP is announced though nothing answers for it.
func TestComplaintAVIPIsAnnouncedWithNobodyBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("a", true)
		w.set("b", true)
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		apply(t, c, state("one"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if slices.ContainsFunc(w.happened(), func(line string) bool { return strings.HasPrefix(line, "+ "+vipA) }) || len(w.lo) > 0 {
			t.Errorf("%v is on loopback, which announces it", w.lo)
		}
	})
}
