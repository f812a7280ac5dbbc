package reach

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// field is a wire with real servers at its end.
type field struct {
	mu      sync.Mutex
	silent  map[policy.MAC]bool
	refuses map[policy.MAC]bool
	broken  error
	forge   func(p Probe) []Answer // what somebody else sends in place of the server
	opened  int
	asked   map[policy.MAC][]time.Time
	resets  map[policy.MAC]int
	heard   func(Answer)
	own     []netip.Addr
}

func newField() *field {
	return &field{silent: map[policy.MAC]bool{}, refuses: map[policy.MAC]bool{}, asked: map[policy.MAC][]time.Time{}, resets: map[policy.MAC]int{}}
}

func (f *field) open(own []netip.Addr, heard func(Answer)) (Wire, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	f.heard, f.own = heard, own
	return f, nil
}

func (f *field) Source(v6 bool) (netip.AddrPort, bool) {
	for _, a := range f.own {
		if a.Is6() == v6 {
			return netip.AddrPortFrom(a, 40000), true
		}
	}
	return netip.AddrPort{}, false
}

func (f *field) Close() error { return nil }

func (f *field) Send(p Probe, to policy.MAC) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.broken != nil:
		return f.broken
	case p.Reset:
		f.resets[to]++
		return nil
	}
	f.asked[to] = append(f.asked[to], time.Now())
	answers := []Answer{{From: p.To, To: p.From, Sequence: p.Sequence, Refused: f.refuses[to]}}
	if f.forge != nil {
		answers = f.forge(p)
	}
	if f.silent[to] {
		return nil
	}
	heard := f.heard
	time.AfterFunc(time.Millisecond, func() {
		for _, a := range answers {
			heard(a)
		}
	})
	return nil
}

func (f *field) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// probed, reset and openings are how often that happened until now.
func (f *field) probed(m policy.MAC) (n int) { f.set(func() { n = len(f.asked[m]) }); return n }
func (f *field) reset(m policy.MAC) (n int)  { f.set(func() { n = f.resets[m] }); return n }
func (f *field) openings() (n int)           { f.set(func() { n = f.opened }); return n }

func target(n int) Target {
	return Target{
		Key: Key{Guest: policy.GuestName(fmt.Sprintf("rs%d", n)), VIP: vip4}, MAC: policy.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)},
		Interval: time.Second, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3,
	}
}

var own = []netip.Addr{own4.Addr()}

// start runs a prober in the field. It returns it and the number of changes that it tells of.
func start(t *testing.T, f *field) (*Prober, *atomic.Int32) {
	t.Helper()
	p := New(slog.New(slog.DiscardHandler), f.open)
	done, changes := make(chan struct{}), new(atomic.Int32)
	go func() {
		defer close(done)
		p.Run(t.Context(), func() { changes.Add(1) })
	}()
	t.Cleanup(func() { <-done })
	return p, changes
}

func state(p *Prober, t Target) health.State { return p.Findings()[t.Key].State }

func TestAVIPIsMissedAndFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		p, changes := start(t, f)
		one, two := target(1), target(2)
		p.Want(own, []Target{one, two})
		time.Sleep(2 * time.Second)
		if state(p, one) != health.Up || state(p, two) != health.Up || changes.Load() != 0 {
			t.Fatalf("%v and %d changes, want both up and none", p.Findings(), changes.Load())
		}
		before := f.probed(one.MAC)
		f.set(func() { f.silent[one.MAC] = true })
		for range 15 {
			time.Sleep(time.Second)
			if n := f.probed(one.MAC) - before; state(p, one) == health.Down && n < one.Fall {
				t.Errorf("down after %d probes", n)
			}
		}
		synctest.Wait()
		if state(p, one) != health.Down || state(p, two) != health.Up || changes.Load() != 1 {
			t.Errorf("%v and %d changes, want the first down and one", p.Findings(), changes.Load())
		}
		silent, heard := p.Findings()[one.Key], p.Findings()[two.Key]
		if heard.Heard.Sub(silent.Since) > 2*time.Second || silent.Missed.Before(silent.Since) || !silent.Heard.Before(silent.Since) {
			t.Errorf("%+v beside %+v: its neighbour was not asked at once", silent, heard)
		}
		f.set(func() { f.silent[one.MAC] = false })
		time.Sleep(often*11/10 + 3*time.Second)
		synctest.Wait()
		if state(p, one) != health.Up || changes.Load() != 2 {
			t.Errorf("%v and %d changes, want it up again and two", p.Findings(), changes.Load())
		}
		if asked, resets := f.probed(one.MAC), f.reset(one.MAC); asked != resets {
			t.Errorf("%d probes and %d resets: the server holds what is left", asked, resets)
		}
		f.set(func() { f.asked = map[policy.MAC][]time.Time{} })
		time.Sleep(10 * often)
		if n := f.probed(two.MAC); n < 9 || n > 12 {
			t.Errorf("%d probes in ten times %s", n, often)
		}
	})
}

// TestNothingListensIsNoMissingVIP: a port that refuses is behind a VIP that is there.
func TestNothingListensIsNoMissingVIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		p, _ := start(t, f)
		one := target(1)
		f.set(func() { f.refuses[one.MAC] = true })
		p.Want(own, []Target{one})
		time.Sleep(30 * time.Second)
		if state(p, one) != health.Up || f.reset(one.MAC) != 0 {
			t.Errorf("%v after %d resets, want it up and nothing to reset", p.Findings(), f.reset(one.MAC))
		}
	})
}

// TestForgeriesAreNotHeard sends every answer but the right one.
func TestForgeriesAreNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		f.forge = func(p Probe) []Answer {
			return []Answer{
				{From: p.To, To: p.From, Sequence: p.Sequence + 1},
				{From: p.To, To: p.From, Sequence: p.Sequence - 1},
				{From: netip.AddrPortFrom(p.To.Addr(), p.To.Port()+1), To: p.From, Sequence: p.Sequence},
				{From: netip.AddrPortFrom(p.To.Addr().Next(), p.To.Port()), To: p.From, Sequence: p.Sequence},
				{From: p.To, To: netip.AddrPortFrom(p.From.Addr(), p.From.Port()+1), Sequence: p.Sequence},
			}
		}
		p, _ := start(t, f)
		p.Want(own, []Target{target(1)})
		time.Sleep(time.Minute)
		if state(p, target(1)) != health.Down {
			t.Errorf("%v, want it down", p.Findings())
		}
	})
}

// TestALateAnswerChangesNothing: what is answered after its time counts as silence once, and not twice.
func TestALateAnswerChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		p, _ := start(t, f)
		one := target(1)
		f.forge = func(probe Probe) []Answer { // the field is locked
			heard := f.heard
			time.AfterFunc(one.Timeout+100*time.Millisecond, func() { heard(Answer{From: probe.To, To: probe.From, Sequence: probe.Sequence}) })
			return nil
		}
		p.Want(own, []Target{one})
		time.Sleep(time.Minute)
		if state(p, one) != health.Down {
			t.Errorf("%v, want it down", p.Findings())
		}
	})
}

// TestManyTargetsShareAPace: probes lie apart, all targets have their turn, and another list disturbs none that stays.
func TestManyTargetsShareAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		p, _ := start(t, f)
		var all []Target
		for n := range 4000 {
			all = append(all, target(n))
		}
		p.Want(own, all)
		time.Sleep(30 * time.Second)
		p.Want(own, all[:3000])
		time.Sleep(30 * time.Second)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		seconds, total := map[time.Time]int{}, 0
		for _, x := range all {
			if len(f.asked[x.MAC]) == 0 {
				t.Fatalf("%s was not probed in a minute", x.Guest)
			}
			total += len(f.asked[x.MAC])
			for _, at := range f.asked[x.MAC] {
				seconds[at.Truncate(time.Second)]++
			}
		}
		for at, n := range seconds {
			if most := int(time.Second / apart); n > most {
				t.Errorf("%d probes in the second of %s, want at most %d", n, at, most)
			}
		}
		if least := int(time.Minute/apart) * 9 / 10; total < least {
			t.Errorf("%d probes in a minute, want at least %d", total, least)
		}
		if n := len(p.Findings()); n != 3000 {
			t.Errorf("%d findings, want one of each target that stays", n)
		}
	})
}

// TestABrokenWireBlamesNobody: what could not be sent is nobody's silence, and the wire is opened again.
func TestABrokenWireBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		f.broken = errors.New("network is down")
		p, _ := start(t, f)
		p.Want(own, []Target{target(1)})
		time.Sleep(time.Minute)
		if opened := f.openings(); len(p.Findings()) != 0 || opened < 5 || opened > 20 {
			t.Errorf("%v, opened %d times in a minute", p.Findings(), opened)
		}
		f.set(func() { f.broken = nil })
		time.Sleep(10 * time.Second)
		if state(p, target(1)) != health.Up {
			t.Errorf("%v, want it up", p.Findings())
		}
		opened := f.openings()
		p.Want([]netip.Addr{own4.Addr().Next()}, []Target{target(1)})
		time.Sleep(time.Minute)
		if f.openings() != opened+1 {
			t.Errorf("opened %d times for another address, want once", f.openings()-opened)
		}
		p.Want(nil, nil)
		time.Sleep(time.Minute)
		if f.openings() != opened+1 || len(p.Findings()) != 0 {
			t.Errorf("opened for nobody, or %v", p.Findings())
		}
	})
}

// TestAFamilyWithoutAddressIsNotKnown: a director without an IPv6 address says nothing of IPv6 VIPs.
func TestAFamilyWithoutAddressIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField()
		p, _ := start(t, f)
		six := target(6)
		six.VIP = vip6
		p.Want(own, []Target{six, target(4)})
		time.Sleep(time.Minute)
		if len(p.Findings()) != 1 || state(p, target(4)) != health.Up {
			t.Errorf("%v, want the IPv4 one up alone", p.Findings())
		}
	})
}
