package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// programs records what was run and holds that nothing ran beside it.
type programs struct {
	mu      sync.Mutex
	running int
	ran     []string
	takes   time.Duration
	err     error
}

func (p *programs) run(ctx context.Context, path string, args, env []string) error {
	p.mu.Lock()
	p.running++
	line := path + " " + strings.Join(args, " ")
	if p.running > 1 {
		line += " beside another"
	}
	if want := fmt.Sprintf("BLADENET_STATE=%s BLADENET_SERVICE=%s BLADENET_VIP=%s BLADENET_PORT=%s", args[0], args[1], args[2], args[3]); strings.Join(env, " ") != want {
		line += fmt.Sprintf(" with environment %q", env)
	}
	p.ran = append(p.ran, line)
	takes, err := p.takes, p.err
	p.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	return err
}

func (p *programs) since() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.ran
	p.ran = nil
	return out
}

// TestQuorumPrograms follows a service through gains and losses of its quorum.
func TestQuorumPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(), &programs{}
		c := New(Config{
			Log: slog.New(slog.DiscardHandler), Store: Store{filepath.Join(t.TempDir(), "state.json")}, Table: fakeTable{w}, Place: fakePlace{w}, Announcer: fakeAnnouncer{w}, Prober: fakeProber{w},
			Probe: w.probe, Program: p.run, End: func(bool) {},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		a := state("one")
		a.Balancer.Services[0].OnUp, a.Balancer.Services[0].OnDown = "/up", "/down"
		apply(t, c, a)
		want := func(lines ...string) {
			t.Helper()
			synctest.Wait()
			if got := p.since(); !slices.Equal(got, lines) {
				t.Errorf("ran %q, want %q", got, lines)
			}
		}
		want() // nothing is known yet
		time.Sleep(3 * time.Second)
		want("/up up www 203.0.113.10 80/tcp")
		w.set("a", true)
		time.Sleep(5 * time.Second)
		want()
		w.set("b", true)
		time.Sleep(5 * time.Second)
		want("/down down www 203.0.113.10 80/tcp")

		p.mu.Lock()
		p.takes, p.err = 20*time.Second, errors.New("exit status 3") // while it runs the quorum is lost and gained
		p.mu.Unlock()
		for _, down := range []bool{false, true, false} {
			w.set("b", down)
			time.Sleep(5 * time.Second)
		}
		time.Sleep(time.Minute)
		want("/up up www 203.0.113.10 80/tcp")
		b := a
		b.Revision, b.Balancer.Services = "two", slices.Clone(a.Balancer.Services)
		b.Balancer.Services[0].Hysteresis = 1
		apply(t, c, b)
		time.Sleep(time.Minute)
		want()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestQuorumProgramsTakeTurns holds that two services' programs never run at once, and that one that hangs is ended.
func TestQuorumProgramsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &programs{takes: time.Hour}
		c := newCommands(slog.New(slog.DiscardHandler), p.run)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.run(ctx) })
		services := []policy.VirtualService{
			{Service: "a", VIP: netip.MustParseAddr(vipA), Protocol: "tcp", Port: 80, OnUp: "/a"},
			{Service: "b", VIP: netip.MustParseAddr(vipA), Protocol: "tcp", Port: 81, OnUp: "/b"},
			{Service: "c", VIP: netip.MustParseAddr(vipA), Protocol: "tcp", Port: 82},
		}
		d := Decision{Services: []ServiceDecision{{Quorum: true}, {Quorum: true}, {Quorum: true}}}
		for range 100 {
			c.want(services, d, nil)
			time.Sleep(time.Second)
		}
		if got, want := p.since(), []string{"/a up a 203.0.113.10 80/tcp", "/b up b 203.0.113.10 81/tcp"}; !slices.Equal(got, want) {
			t.Errorf("ran %q, want %q", got, want)
		}
		if p.running != 0 {
			t.Errorf("%d run %s after they began", p.running, 100*time.Second)
		}
		cancel()
		wg.Wait()
	})
}
