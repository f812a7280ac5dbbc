package director

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
)

// Config is what a Controller is made of.
type Config struct {
	Log      *slog.Logger
	Store    Store
	Software string            // for people, in the status
	End      func(reboot bool) // ends the machine or the process, after Run has been told to stop
}

// Controller holds one director's wanted state and makes it so. It is a channel.Handler.
type Controller struct {
	cfg     Config
	started time.Time
	wake    chan struct{}
	alive   atomic.Int64 // when the loop last came round, Unix nanoseconds

	mu    sync.Mutex
	state channel.Apply
	err   error // why the state could not be reached
}

// New returns a controller that has no state yet.
func New(cfg Config) *Controller {
	return &Controller{cfg: cfg, started: time.Now(), wake: make(chan struct{}, 1)}
}

// Apply takes over a wanted state.
func (c *Controller) Apply(ctx context.Context, a channel.Apply) (channel.Status, error) {
	if err := c.cfg.Store.Save(a); err != nil {
		return channel.Status{}, err
	}
	c.mu.Lock()
	c.state = a
	c.mu.Unlock()
	return c.Status(ctx)
}

// Status says how the director is.
func (c *Controller) Status(context.Context) (channel.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := channel.Status{Software: c.cfg.Software, Guest: c.state.Guest, Revision: c.state.Revision, Uptime: time.Since(c.started)}
	if c.err != nil {
		s.Error = c.err.Error()
	}
	return s, nil
}

// Shutdown ends the machine.
func (c *Controller) Shutdown(_ context.Context, s channel.Shutdown) error {
	c.cfg.Log.Info("blade asks for the end", "reboot", s.Reboot)
	c.cfg.End(s.Reboot)
	return nil
}

// Run loads the last good state and keeps the director as it should be until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	state, found, err := c.cfg.Store.Load()
	if err != nil {
		c.cfg.Log.Error("begin without a state", "err", err)
	}
	if found {
		c.cfg.Log.Info("begin with the last state", "revision", state.Revision, "guest", state.Guest)
		c.mu.Lock()
		c.state = state
		c.mu.Unlock()
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		c.alive.Store(time.Now().UnixNano())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Alive says when the loop last came round: what watches the process asks, so that a loop that is stuck counts as hung.
func (c *Controller) Alive() time.Time { return time.Unix(0, c.alive.Load()) }
