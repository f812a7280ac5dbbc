package server

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// machine is everything around a controller.
type machine struct {
	mu     sync.Mutex
	fail   error // of the next passes
	inside policy.Inside
	name   string
	saved  *channel.Apply
	ended  string
}

func (m *machine) Converge(_ context.Context, want policy.Inside) ([]plan.Step, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		m.inside = want
	}
	return nil, m.fail
}

func (m *machine) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (m *machine) Load() (channel.Apply, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.saved == nil {
		return channel.Apply{}, false, nil
	}
	return *m.saved, true, nil
}

func (m *machine) Save(a channel.Apply) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = &a
	return nil
}

func (m *machine) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// begin runs a controller until the test ends.
func begin(t *testing.T, m *machine) *Controller {
	t.Helper()
	c := New(Config{
		Log: slog.New(slog.DiscardHandler), Store: m, Software: "test", Place: m,
		Hostname: func(name string) error { m.set(func() { m.name = name }); return nil },
		Service:  func() (channel.ServerStatus, error) { return channel.ServerStatus{Running: true, Restarts: 2}, nil },
		End: func(reboot bool) {
			m.set(func() { m.ended = map[bool]string{true: "reboot", false: "power off"}[reboot] })
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

func state(revision string) channel.Apply {
	a := channel.Apply{Revision: revision, Guest: "www-1", Role: policy.RoleRealServer}
	a.Inside.Hostname = "www-1"
	a.Inside.VIPs = []policy.VIP{{Address: netip.MustParseAddr("203.0.113.10")}}
	return a
}

func ready(c *Controller) bool {
	select {
	case <-c.Ready():
		return true
	default:
		return false
	}
}

// The service may start when a state has been reached, and not before; a state that was reached is kept.
func TestReadyAfterTheFirstState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{fail: errors.New("no such\ninterface")}
		c := begin(t, m)
		time.Sleep(10 * time.Second)
		if ready(c) {
			t.Error("ready without a state")
		}
		s, err := c.Apply(t.Context(), state("one"))
		if err != nil || s.Error != "no such; interface" || s.Revision != "one" || ready(c) || m.saved != nil {
			t.Errorf("a state that cannot be reached: %+v, %v, ready %v", s, err, ready(c))
		}
		m.set(func() { m.fail = nil })
		time.Sleep(2 * lookEvery)
		s, err = c.Status(t.Context(), channel.Query{})
		if err != nil || s.Error != "" || !ready(c) || len(s.VIPs) != 1 || !s.VIPs[0].Up || s.Server == nil || s.Server.Restarts != 2 {
			t.Errorf("reached: %+v, %v, ready %v", s, err, ready(c))
		}
		if m.saved == nil || m.saved.Revision != "one" || m.name != "www-1" || len(m.inside.VIPs) != 1 {
			t.Errorf("kept %+v, name %q, inside %+v", m.saved, m.name, m.inside)
		}
		if time.Since(c.Alive()) > 2*lookEvery {
			t.Errorf("the loop came round %v ago", time.Since(c.Alive()))
		}
		if err := c.Shutdown(t.Context(), channel.Shutdown{Reboot: true}); err != nil || m.ended != "reboot" {
			t.Errorf("shutdown: %v, %q", err, m.ended)
		}
	})
}

// A machine that reboots is ready by what it was last, without a word of its blade.
func TestReadyByTheStateOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		was := state("one")
		m := &machine{saved: &was}
		c := begin(t, m)
		synctest.Wait()
		if !ready(c) || len(m.inside.VIPs) != 1 {
			t.Errorf("ready %v, inside %+v", ready(c), m.inside)
		}
	})
}

// Its image is a real server's: a director's state is not taken, and what was there stays.
func TestADirectorsStateIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		c := begin(t, m)
		if s, err := c.Apply(t.Context(), state("one")); err != nil || s.Error != "" {
			t.Fatalf("apply: %+v, %v", s, err)
		}
		other := state("two")
		other.Role = policy.RoleDirector
		s, err := c.Apply(t.Context(), other)
		if err != nil || !strings.Contains(s.Error, "not a director's") || s.Revision != "one" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
