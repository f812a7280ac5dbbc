package director

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/announce"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/guests/director/reach"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// world is everything around a controller: an IPVS table, a loopback, routing daemons and real servers.
type world struct {
	mu         sync.Mutex
	table      ipvs.Table
	tableErr   error
	lo         []netip.Addr
	wanted     policy.Inside
	down       map[string]bool
	hang       map[string]bool // until the probe's time is over
	answer     map[string]health.Answer
	stuck      chan struct{} // probes of b wait for it whatever their time; nil: none does
	spec       announce.Spec
	up         []netip.Addr // VIPs that the daemons were told are on the loopback
	ended      string
	announcing bool
	stall      chan struct{} // the table answers once it is closed; nil: at once
	sync       int           // the number of those that share connections
	targets    []reach.Target
	findings   map[reach.Key]reach.Finding
	found      func()   // tells the controller of them
	history    []string // what happened to VIPs and weights, in order
}

type fakeTable struct{ *world }

func (w fakeTable) Observe(context.Context) (ipvs.Table, error) {
	w.mu.Lock()
	stall := w.stall
	w.mu.Unlock()
	if stall != nil {
		<-stall
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out := ipvs.Table{Services: slices.Clone(w.table.Services)}
	for i := range out.Services {
		out.Services[i].Destinations = slices.Clone(out.Services[i].Destinations)
	}
	return out, w.tableErr
}

func (w fakeTable) Sync(_ context.Context, link string, number int) ([]plan.Step, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sync != number {
		w.history = append(w.history, fmt.Sprintf("sync %d on %s", number, link))
		w.sync = number
	}
	return nil, nil
}

func (w fakeTable) Apply(_ context.Context, steps []ipvs.Step) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range steps {
		w.history = append(w.history, strings.Join(strings.Fields(s.String()), " "))
		i := slices.IndexFunc(w.table.Services, func(x ipvs.Service) bool { return x.Key == s.Service.Key })
		switch s.Op {
		case ipvs.AddService:
			w.table.Services = append(w.table.Services, s.Service)
			continue
		case ipvs.DelService:
			w.table.Services = slices.Delete(w.table.Services, i, i+1)
			continue
		}
		dests := &w.table.Services[i].Destinations
		j := slices.IndexFunc(*dests, func(d ipvs.Destination) bool { return d.Address == s.Destination.Address })
		switch s.Op {
		case ipvs.AddDestination:
			*dests = append(*dests, s.Destination)
		case ipvs.SetDestination:
			(*dests)[j].Weight = s.Destination.Weight
		case ipvs.DelDestination:
			*dests = slices.Delete(*dests, j, j+1)
		}
	}
	return nil
}

type fakeProber struct{ *world }

func (w fakeProber) Want(_ []netip.Addr, targets []reach.Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = targets
}

func (w fakeProber) Run(ctx context.Context, changed func()) {
	w.mu.Lock()
	w.found = changed
	w.mu.Unlock()
	<-ctx.Done()
}

func (w fakeProber) Findings() map[reach.Key]reach.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.findings)
}

// find replaces what probes through VIPs have found.
func (w *world) find(f map[reach.Key]reach.Finding) {
	w.mu.Lock()
	w.findings = f
	found := w.found
	w.mu.Unlock()
	found()
}

type fakePlace struct{ *world }

func (w fakePlace) Loopback(context.Context) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lo), nil
}

func (w fakePlace) Converge(_ context.Context, want policy.Inside) ([]plan.Step, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = want
	var steps []plan.Step
	var lo []netip.Addr
	for _, v := range want.VIPs {
		lo = append(lo, v.Address)
		if !slices.Contains(w.lo, v.Address) {
			w.history = append(w.history, "+ "+v.Address.String())
			steps = append(steps, plan.Step{Verb: plan.Create, Object: "address " + v.Address.String()})
		}
	}
	for _, a := range w.lo {
		if !slices.Contains(lo, a) {
			w.history = append(w.history, "- "+a.String())
			steps = append(steps, plan.Step{Verb: plan.Delete, Object: "address " + a.String()})
		}
	}
	w.lo = lo
	return steps, nil
}

func (w fakePlace) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

type fakeAnnouncer struct{ *world }

func (w fakeAnnouncer) Up(vips []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = vips
}

// told says whether the daemons' last word is that exactly these VIPs are on the loopback.
func (w *world) told(vips ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.EqualFunc(w.up, vips, func(a netip.Addr, text string) bool { return a.String() == text })
}

func (w fakeAnnouncer) Want(spec announce.Spec) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spec = spec
}

func (w fakeAnnouncer) Run(ctx context.Context) {
	set := func(is bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.announcing = is
	}
	set(true)
	defer set(false)
	<-ctx.Done()
}

func (w fakeAnnouncer) Observe(context.Context) channel.AnnounceStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return channel.AnnounceStatus{Protocol: w.spec.Protocol()}
}

func (w *world) probe(ctx context.Context, c policy.Check) (health.Answer, error) {
	w.mu.Lock()
	down, hang, stuck, answer := w.down[c.ID], w.hang[c.ID], w.stuck, w.answer[c.ID]
	w.mu.Unlock()
	if stuck != nil && c.ID == "b" {
		<-stuck
	}
	if hang {
		<-ctx.Done()
		return health.Answer{}, ctx.Err()
	}
	if down {
		return health.Answer{}, errors.New("refused")
	}
	return answer, nil
}

func (w *world) set(check string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[check] = down
}

// happened returns and forgets what happened since it was asked last.
func (w *world) happened() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.history
	w.history = nil
	return h
}

const vipA = "203.0.113.10"

// state is one service with two real servers, each with a check of one second.
func state(revision string) channel.Apply {
	a := channel.Apply{Revision: revision, Guest: "dir"}
	a.Inside.VIPs = []policy.VIP{{Address: addr(vipA), Services: []policy.ServiceName{"www"}}}
	a.Inside.Sysctls = []policy.Sysctl{{Key: "net/ipv4/ip_forward", Value: "0"}}
	a.Balancer.Sysctls = []policy.Sysctl{{Key: "net/ipv4/vs/sloppy_tcp", Value: "1"}}
	v := policy.VirtualService{Service: "www", VIP: addr(vipA), Protocol: "tcp", Port: 80, Scheduler: "wlc", Mode: "spread", Quorum: 1}
	for i, name := range []string{"a", "b"} {
		ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		v.Destinations = append(v.Destinations, policy.Destination{Guest: policy.GuestName(name), Address: ip, Port: 80, Weight: 100, Check: name})
		a.Balancer.Checks = append(a.Balancer.Checks, policy.Check{ID: name, Guest: policy.GuestName(name), Interval: time.Second, Timeout: time.Second / 2, Rise: 2, Fall: 2})
	}
	a.Balancer.Services = []policy.VirtualService{v}
	a.Balancer.Announce = policy.Announce{OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}}
	return a
}

func newWorld() *world {
	return &world{down: map[string]bool{}, hang: map[string]bool{}, answer: map[string]health.Answer{}}
}

// controller starts a controller in w; stop ends it and waits.
func controller(t *testing.T, w *world, store Store) (c *Controller, stop func()) {
	t.Helper()
	c = New(Config{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Store: store, Software: "test",
		Table: fakeTable{w}, Place: fakePlace{w}, Announcer: fakeAnnouncer{w}, Probe: w.probe, Prober: fakeProber{w},
		End: func(reboot bool) { w.ended = map[bool]string{true: "reboot", false: "power off"}[reboot] },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	t.Cleanup(stop)
	return c, stop
}

func wantHistory(t *testing.T, w *world, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := w.happened(); !slices.Equal(got, want) {
		t.Errorf("happened\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

const (
	lower1 = "~ director update server a 10.0.0.1:80 of 203.0.113.10:80/tcp weight 100 -> 0 (down: refused)"
	lower2 = "~ director update server b 10.0.0.2:80 of 203.0.113.10:80/tcp weight 100 -> 0 (down: refused)"
	raise1 = "~ director update server a 10.0.0.1:80 of 203.0.113.10:80/tcp weight 0 -> 100"
	raise2 = "~ director update server b 10.0.0.2:80 of 203.0.113.10:80/tcp weight 0 -> 100"
)

func TestLifeOfAVIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("b", true)
		store := Store{filepath.Join(t.TempDir(), "state.json")}
		c, _ := controller(t, w, store)
		s, err := c.Apply(t.Context(), state("one"))
		if err != nil || s.Revision != "one" || s.Error != "" || s.VIPs[0].Up {
			t.Fatalf("status %+v, error %v", s, err)
		}
		wantHistory(t, w,
			"+ director create service www 203.0.113.10:80/tcp scheduler wlc",
			"+ director create server a 10.0.0.1:80 of 203.0.113.10:80/tcp weight 0 (not checked yet)",
			"+ director create server b 10.0.0.2:80 of 203.0.113.10:80/tcp weight 0 (not checked yet)")
		time.Sleep(1500 * time.Millisecond) // b is asked twice
		wantHistory(t, w, raise1, "+ 203.0.113.10")
		if !w.told(vipA) {
			t.Error("VRRP was not told of the VIP")
		}
		if got := len(w.wanted.Sysctls); got != 2 {
			t.Errorf("%d sysctls, want the inside's and the balancer's", got)
		}
		w.set("b", false)
		time.Sleep(2 * time.Second)
		wantHistory(t, w, raise2)
		w.set("a", true)
		w.set("b", true)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		got := w.happened()
		slices.Sort(got)
		if want := []string{"- 203.0.113.10", lower1, lower2}; !slices.Equal(got, want) {
			t.Errorf("happened %q", got)
		}
		if !w.told() {
			t.Error("VRRP was not told that the VIP has gone")
		}
		s, _ = c.Status(t.Context(), channel.Query{})
		d := s.Services[0].Destinations[0]
		if s.VIPs[0].Up || s.VIPs[0].Reason != "www has 0 of 1 real servers that it needs" || d.Up || d.Reason != "down: refused" || d.Since.IsZero() {
			t.Errorf("status %+v", s)
		}
		w.set("a", false)
		time.Sleep(3 * time.Second)
		wantHistory(t, w, raise1, "+ 203.0.113.10")
		time.Sleep(time.Minute)
		wantHistory(t, w)
	})
}

// TestRestartKeepsRotation holds that a new process takes the table and the loopback over as they are: no weight goes to 0 and
// no VIP away because its checks have not answered yet, and it needs no word from the blade.
func TestRestartKeepsRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("b", true)
		store := Store{filepath.Join(t.TempDir(), "state.json")}
		c, stop := controller(t, w, store)
		if _, err := c.Apply(t.Context(), state("one")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		stop()
		synctest.Wait()
		w.happened()

		c, _ = controller(t, w, store)
		time.Sleep(time.Minute)
		wantHistory(t, w)
		s, err := c.Status(t.Context(), channel.Query{})
		if err != nil || s.Revision != "one" || !s.VIPs[0].Up || s.Error != "" {
			t.Errorf("status %+v, error %v", s, err)
		}
	})
}

// TestRestartWithADeadServer holds that what is presumed of a server after a restart does not outlive its first probes.
func TestRestartWithADeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		store := Store{filepath.Join(t.TempDir(), "state.json")}
		c, stop := controller(t, w, store)
		if _, err := c.Apply(t.Context(), state("one")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		stop()
		synctest.Wait()
		w.happened()
		w.set("a", true)
		controller(t, w, store)
		time.Sleep(1500 * time.Millisecond) // both of them
		wantHistory(t, w, lower1)
	})
}

// TestSync: a state's number reaches the kernel, and its absence does.
func TestSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		for i, number := range []int{0, 7, 8, 0} {
			a := state(fmt.Sprint(i))
			a.Balancer.Sync = number
			if _, err := c.Apply(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, line := range w.happened() {
			if strings.HasPrefix(line, "sync") {
				got = append(got, line)
			}
		}
		if want := []string{"sync 7 on eth1", "sync 8 on eth1", "sync 0 on eth1"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestForeignChangesAreUndone holds that the loop reads back what is there.
func TestForeignChangesAreUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		if _, err := c.Apply(t.Context(), state("one")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.happened()
		w.mu.Lock()
		w.lo = nil
		w.table.Services[0].Destinations[1].Weight = 3
		w.mu.Unlock()
		time.Sleep(lookEvery)
		wantHistory(t, w, "~ director update server b 10.0.0.2:80 of 203.0.113.10:80/tcp weight 3 -> 100", "+ 203.0.113.10")
	})
}

// TestBrokenTableFreezesVIPs holds that without IPVS nothing new is announced and what is announced stays.
func TestBrokenTableFreezesVIPs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.tableErr = ipvs.ErrNoIPVS
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		s, err := c.Apply(t.Context(), state("one"))
		if err != nil || !strings.Contains(s.Error, "load module ip_vs") {
			t.Errorf("status %+v, error %v", s, err)
		}
		time.Sleep(3 * time.Second)
		wantHistory(t, w)
		w.mu.Lock()
		w.tableErr = nil
		w.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.happened(); len(got) == 0 || got[len(got)-1] != "+ 203.0.113.10" {
			t.Errorf("happened %q", got)
		}
		w.mu.Lock()
		w.tableErr = errors.New("gone")
		w.mu.Unlock()
		w.set("a", true)
		w.set("b", true)
		time.Sleep(5 * time.Second)
		wantHistory(t, w)
		s, _ = c.Status(t.Context(), channel.Query{})
		if s.Error != "gone" || !s.VIPs[0].Up {
			t.Errorf("status %+v", s)
		}
	})
}

// TestOnlyGoodStatesAreKept holds that the store has the last state that was reached, not the last that was wanted.
func TestOnlyGoodStatesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		store := Store{filepath.Join(t.TempDir(), "state.json")}
		c, _ := controller(t, w, store)
		if _, err := c.Apply(t.Context(), state("good")); err != nil {
			t.Fatal(err)
		}
		bad := state("bad")
		bad.Balancer.Services[0].Protocol = "icmp"
		s, err := c.Apply(t.Context(), bad)
		if err != nil || s.Revision != "bad" || !strings.Contains(s.Error, "no virtual service") {
			t.Errorf("status %+v, error %v", s, err)
		}
		kept, found, err := store.Load()
		if err != nil || !found || kept.Revision != "good" {
			t.Errorf("kept %q, found %v, error %v", kept.Revision, found, err)
		}
		if _, err := c.Apply(t.Context(), state("better")); err != nil {
			t.Fatal(err)
		}
		if kept, _, _ := store.Load(); kept.Revision != "better" {
			t.Errorf("kept %q", kept.Revision)
		}
	})
}

// TestServerLeavesThePolicy holds that one with connections is drained and goes at last when it lingered long enough.
func TestServerLeavesThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		if _, err := c.Apply(t.Context(), state("one")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.happened()
		w.mu.Lock()
		w.table.Services[0].Destinations[1].Active = 5
		w.mu.Unlock()
		less := state("two")
		less.Balancer.Services[0].Destinations = less.Balancer.Services[0].Destinations[:1]
		less.Balancer.Checks = less.Balancer.Checks[:1]
		if _, err := c.Apply(t.Context(), less); err != nil {
			t.Fatal(err)
		}
		wantHistory(t, w, "~ director update server b 10.0.0.2:80 of 203.0.113.10:80/tcp weight 100 -> 0 (not in the policy)")
		time.Sleep(lingerFor - 10*time.Second)
		wantHistory(t, w)
		time.Sleep(20 * time.Second)
		wantHistory(t, w, "- director delete server b 10.0.0.2:80 of 203.0.113.10:80/tcp 5 connections (not in the policy, lingered long enough)")
	})
}

func TestAnnouncerAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		if _, err := c.Apply(t.Context(), state("one")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * announceEvery)
		s, err := c.Status(t.Context(), channel.Query{})
		if err != nil || s.Announce.Protocol != "ospf" || !slices.Equal(w.spec.VIPs, []netip.Addr{addr(vipA)}) {
			t.Errorf("status %+v, error %v, spec %+v", s, err, w.spec)
		}
		if err := c.Shutdown(t.Context(), channel.Shutdown{Reboot: true}); err != nil || w.ended != "reboot" {
			t.Errorf("error %v, ended by %q", err, w.ended)
		}
	})
}
