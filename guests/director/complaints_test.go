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
			Log: slog.New(slog.DiscardHandler), Store: Store{filepath.Join(t.TempDir(), "state.json")}, Software: "test", Table: fakeTable{w}, Place: fakePlace{w}, Announcer: fakeAnnouncer{w}, Prober: fakeProber{w},
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

// keepalived 1228: a reload cuts the connections of what drains. dpvs 751: checks are silent after a reload.
func TestComplaintAReloadCutsWhatDrainsAndSilencesChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := running(t, w)
		w.mu.Lock()
		w.table.Services[0].Destinations[0].Active = 7
		w.mu.Unlock()
		for i := range 5 {
			a := weighted(strings.Repeat("r", i+1), 100)
			a.Balancer.Services[0].Destinations[0].Drained = true
			apply(t, c, a)
			time.Sleep(time.Second)
		}
		if got := weights(w); got["10.0.0.1"] != 0 || got["10.0.0.2"] != 100 {
			t.Errorf("weights %v", got)
		}
		gone := weighted("gone", 100) // the server leaves the policy altogether, its connections stay
		gone.Balancer.Services[0].Destinations = gone.Balancer.Services[0].Destinations[1:]
		apply(t, c, gone)
		time.Sleep(time.Minute)
		synctest.Wait()
		if slices.ContainsFunc(w.happened(), func(line string) bool { return strings.HasPrefix(line, "- ") }) {
			t.Error("a server with connections was deleted")
		}
		w.set("b", true)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := weights(w)["10.0.0.2"]; got != 0 {
			t.Errorf("a server that died after six reloads has weight %d", got)
		}
	})
}

// kube-vip 1397: while servers are renewed one after the other the route is withdrawn. kube-vip 875: one that was renewed is not
// added again.
func TestComplaintARollingUpdateWithdrawsTheVIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		running(t, w)
		for range 3 {
			for id, address := range map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"} {
				w.set(id, true)
				time.Sleep(5 * time.Second)
				w.set(id, false)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if got := weights(w)[address]; got != 100 {
					t.Errorf("%s was renewed and has weight %d", id, got)
				}
			}
		}
		for _, line := range w.happened() {
			if strings.HasSuffix(line, vipA) {
				t.Errorf("the VIP moved: %s", line)
			}
		}
	})
}

// The origin of this project, with ldirectord, Quagga and monit: the health checker is dead and the routing daemon still announces.
func TestComplaintADeadCheckerAnnounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, stop := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		apply(t, c, state("one"))
		time.Sleep(3 * time.Second)
		w.mu.Lock()
		if !w.announcing {
			t.Error("it does not announce while it is well")
		}
		w.stall = make(chan struct{}) // the kernel does not answer any more
		w.mu.Unlock()
		time.Sleep(time.Minute)
		if quiet := time.Since(c.Alive()); quiet < 55*time.Second {
			t.Errorf("a loop that is stuck was alive %s ago: who watches it could not tell", quiet)
		}
		close(w.stall)
		time.Sleep(lookAtLeast + time.Second)
		if quiet := time.Since(c.Alive()); quiet > lookAtLeast {
			t.Errorf("the loop goes on and was alive %s ago", quiet)
		}
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.announcing {
			t.Error("the routing daemons outlive the checker")
		}
	})
}

// The origin of this project: one file for all directors makes locality impossible. Here each director's weights follow from where it stands.
func TestComplaintOneFileForAllMakesLocalityImpossible(t *testing.T) {
	files, err := policy.ReadDir("../../policy/testdata/fleets/nantes")
	if err != nil {
		t.Fatal(err)
	}
	fleet, ds := policy.Load(files)
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	local := map[policy.BladeName]policy.SiteName{}
	for _, d := range fleet.Directors {
		blade, err := policy.Derive(fleet, d.Blade)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range blade.Guests {
			if g.Name != d.Name {
				continue
			}
			for _, v := range g.Balancer.Services {
				if v.Mode != "locality" {
					continue
				}
				decided := decideHeard(v, Well(*g.Balancer), Memory{})
				here, elsewhere := 0, 0
				for i, x := range v.Destinations {
					switch {
					case x.Sorry:
					case x.Site == blade.Site:
						here += decided.Weights[i]
					default:
						elsewhere += decided.Weights[i]
					}
				}
				if here > 0 {
					local[d.Blade] = blade.Site
				}
				if here > 0 && elsewhere*10 > here {
					t.Errorf("%s at %s gives %s %d of its own site's weight and %d of others'", d.Name, blade.Site, v.Service, here, elsewhere)
				}
			}
		}
	}
	if len(local) < 2 {
		t.Errorf("directors with servers of their own site: %v, too few to tell", local)
	}
}
