package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Place is the machine's network namespace.
type Place interface {
	Converge(ctx context.Context, want policy.Inside) ([]plan.Step, error)
	Watch(ctx context.Context, changed func()) error
}

// Store keeps the last good state over a reboot.
type Store interface {
	Load() (channel.Apply, bool, error)
	Save(state channel.Apply) error
}

// Config is what a Controller is made of.
type Config struct {
	Log      *slog.Logger
	Store    Store
	Software string // for people, in the status
	Place    Place
	Hostname func(name string) error              // sets the machine's name
	Service  func() (channel.ServerStatus, error) // how the service is
	End      func(reboot bool)                    // ends the machine, after Run has been told to stop
}

// Controller holds one real server's wanted state and makes it so, again whenever the state or what is there changes. It is a
// channel.Handler.
type Controller struct {
	cfg     Config
	started time.Time
	wake    chan struct{}
	ready   chan struct{} // closed when a state has been reached for the first time
	alive   atomic.Int64  // when the loop last came round, Unix nanoseconds

	mu      sync.Mutex
	state   channel.Apply
	wanted  int           // states taken over
	reached int           // the last of them that a pass has been made for
	passed  chan struct{} // closed and replaced after each pass
	err     error         // of the last pass

	// Only the loop touches these.
	saved int  // the last state that is in the store
	once  bool // ready is closed
}

// New returns a controller that has no state yet.
func New(cfg Config) *Controller {
	return &Controller{cfg: cfg, started: time.Now(), wake: make(chan struct{}, 1), ready: make(chan struct{}), passed: make(chan struct{})}
}

// Times of the loop.
const (
	applyPatience = 2 * time.Second // for a pass, before the blade is told that it is still under way
	lookEvery     = time.Second     // how often what is there is read back, when nothing happens
	passTimeout   = 45 * time.Second
)

// Run loads the last good state and keeps the machine as it should be until ctx ends. It leaves addresses and routes as they are.
func (c *Controller) Run(ctx context.Context) error {
	c.begin()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.watch(ctx) })
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-look.C:
		}
		c.alive.Store(time.Now().UnixNano())
		c.round(ctx)
		look.Reset(lookEvery)
	}
}

func (c *Controller) begin() {
	state, found, err := c.cfg.Store.Load()
	if err != nil {
		c.cfg.Log.Error("begin without a state", "err", err)
	}
	if !found || err != nil {
		return
	}
	c.cfg.Log.Info("begin with the last state", "revision", state.Revision, "guest", state.Guest)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
	c.wanted, c.saved = 1, 1
}

// round brings the machine to the newest state, and tells whoever waits for it.
func (c *Controller) round(ctx context.Context) {
	c.mu.Lock()
	state, wanted := c.state, c.wanted
	c.mu.Unlock()
	if wanted == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	steps, err := c.cfg.Place.Converge(ctx, state.Inside)
	for _, s := range steps {
		c.cfg.Log.Info(string(s.Verb)+" "+s.Object, "subsystem", s.Subsystem, "detail", s.Detail, "reason", s.Reason)
	}
	if state.Inside.Hostname != "" {
		err = errors.Join(err, c.cfg.Hostname(state.Inside.Hostname))
	}
	if err == nil && c.saved != wanted {
		if err = c.cfg.Store.Save(state); err == nil {
			c.saved = wanted
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && (c.err == nil || c.err.Error() != err.Error()) {
		c.cfg.Log.Error("pass", "err", err)
	}
	c.err, c.reached = err, wanted
	close(c.passed)
	c.passed = make(chan struct{})
	if err == nil && !c.once {
		c.once = true
		close(c.ready)
	}
}

// Ready is closed as soon as the network is as wanted: from then on the service may start.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Alive says when the loop last came round: what watches the process asks, so that a loop that is stuck counts as hung.
func (c *Controller) Alive() time.Time { return time.Unix(0, c.alive.Load()) }

// Apply takes over a wanted state. It waits a little for the machine to reach it; the status says whether it has. A state for another
// role is not taken, which the status says too.
func (c *Controller) Apply(ctx context.Context, a channel.Apply) (channel.Status, error) {
	if a.Role != policy.RoleRealServer {
		s, err := c.Status(ctx, channel.Query{})
		s.Error = "its image runs a service: it is not a director's"
		return s, err
	}
	c.mu.Lock()
	c.state = a
	c.wanted++
	mine := c.wanted
	c.mu.Unlock()
	c.nudge()
	patience := time.NewTimer(applyPatience)
	defer patience.Stop()
	for {
		c.mu.Lock()
		reached, passed := c.reached, c.passed
		c.mu.Unlock()
		if reached >= mine {
			return c.Status(ctx, channel.Query{})
		}
		select {
		case <-passed:
		case <-patience.C:
			return c.Status(ctx, channel.Query{})
		case <-ctx.Done():
			return channel.Status{}, ctx.Err()
		}
	}
}

// nudge makes the loop come round. Nudges while it is under way become one.
func (c *Controller) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Status says how the machine is, from what the last pass found. It never waits for one.
func (c *Controller) Status(context.Context, channel.Query) (channel.Status, error) {
	service, err := c.cfg.Service()
	if err != nil {
		service.Ended = fmt.Sprint(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := channel.Status{
		Software: c.cfg.Software, Guest: c.state.Guest, Revision: c.state.Revision, Uptime: time.Since(c.started), Server: &service,
	}
	switch {
	case c.reached != c.wanted:
		s.Error = "this revision is being applied"
	case c.err != nil:
		s.Error = strings.ReplaceAll(c.err.Error(), "\n", "; ")
	default:
		for _, v := range c.state.Inside.VIPs {
			s.VIPs = append(s.VIPs, channel.VIPStatus{Address: v.Address, Up: true})
		}
	}
	return s, nil
}

// Shutdown ends the machine.
func (c *Controller) Shutdown(_ context.Context, s channel.Shutdown) error {
	c.cfg.Log.Info("the blade asks for the end", "reboot", s.Reboot)
	c.cfg.End(s.Reboot)
	return nil
}

// watch wakes the loop when addresses or interfaces change. Between two watches, and without one, the loop still looks by itself.
func (c *Controller) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.cfg.Place.Watch(ctx, c.nudge)
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("watch again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
