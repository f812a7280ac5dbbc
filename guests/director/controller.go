package director

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/announce"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/guests/director/reach"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Table is the IPVS table of the director.
type Table interface {
	Observe(ctx context.Context) (ipvs.Table, error)
	Apply(ctx context.Context, steps []ipvs.Step) error
	Sync(ctx context.Context, link string, number int) ([]plan.Step, error)
}

// Place is the director's network namespace.
type Place interface {
	Loopback(ctx context.Context) ([]netip.Addr, error)
	Converge(ctx context.Context, want policy.Inside) ([]plan.Step, error)
	Watch(ctx context.Context, changed func()) error
}

// Announcer keeps the routing daemons.
type Announcer interface {
	Want(spec announce.Spec)
	Up(vips []netip.Addr)
	Run(ctx context.Context)
	Observe(ctx context.Context) channel.AnnounceStatus
}

// Prober asks real servers through their VIPs.
type Prober interface {
	Want(own []netip.Addr, targets []reach.Target)
	Run(ctx context.Context, changed func())
	Findings() map[reach.Key]reach.Finding
}

// Config is what a Controller is made of.
type Config struct {
	Log       *slog.Logger
	Store     Store
	Software  string // for people, in the status
	Table     Table
	Place     Place
	Announcer Announcer
	Probe     health.Probe
	Prober    Prober
	Program   Program                 // runs what a policy wants run
	Hostname  func(name string) error // sets the machine's name; nil where the machine is not the director's own
	End       func(reboot bool)       // ends the machine, after Run has been told to stop
}

// Controller holds one director's wanted state and makes it so, again whenever the state, the health of a real server or what
// is there changes. It is a channel.Handler.
type Controller struct {
	cfg     Config
	started time.Time
	wake    chan struct{}
	alive   atomic.Int64 // when the loop last came round, Unix nanoseconds

	mu       sync.Mutex
	state    channel.Apply
	wanted   int           // states taken over
	reached  int           // the last of them that a pass has been made for
	passed   chan struct{} // closed and replaced after each pass
	err      error         // of the last pass
	health   Health
	decision Decision
	held     map[netip.Addr]bool // VIPs that are on the loopback after the last pass
	announce channel.AnnounceStatus
	unheard  Unheard
	retarget bool // what is to be probed through VIPs differs

	// Only the loop touches these.
	begun    int                               // the last state whose checks and daemons were set
	saved    int                               // the last state that is in the store
	leaving  map[ipvs.DestinationKey]time.Time // when a destination that drains was first seen
	settling settling
	commands *commands
	probes   *probes
}

// New returns a controller that has no state yet.
func New(cfg Config) *Controller {
	return &Controller{
		cfg: cfg, started: time.Now(), wake: make(chan struct{}, 1), passed: make(chan struct{}),
		health: Health{}, held: map[netip.Addr]bool{}, leaving: map[ipvs.DestinationKey]time.Time{}, settling: settling{}, commands: newCommands(cfg.Log, cfg.Program), probes: &probes{each: map[string]probed{}},
	}
}

// Times of the loop.
const (
	applyPatience = 2 * time.Second  // for a pass, before the blade is told that it is still under way
	lookEvery     = time.Second      // how often what is there is read back, when nothing happens
	lookShare     = 20               // looking takes at most one part in so many of the time,
	lookAtLeast   = 10 * time.Second // unless that would be rarer than this
	announceEvery = time.Second      // how often the routing daemons are asked
	passTimeout   = 45 * time.Second
)

// Run loads the last good state and keeps the director as it should be until ctx ends. It leaves VIPs and IPVS as they are; the
// routing daemons end with it.
func (c *Controller) Run(ctx context.Context) error {
	c.begin()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	sets, results := make(chan []policy.Check), make(chan health.Result, 256)
	wg.Go(func() { health.Run(ctx, sets, results, c.probes.count(c.cfg.Probe)) })
	wg.Go(func() { c.cfg.Announcer.Run(ctx) })
	wg.Go(func() { c.cfg.Prober.Run(ctx, c.nudge) })
	wg.Go(func() { c.commands.run(ctx) })
	wg.Go(func() { c.watchAnnouncer(ctx) })
	wg.Go(func() { c.watchPlace(ctx) })

	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case r := <-results:
			c.learn(r)
		case <-look.C:
		}
		for len(results) > 0 {
			c.learn(<-results)
		}
		began := time.Now()
		c.alive.Store(began.UnixNano())
		c.round(ctx, sets)
		look.Reset(min(max(lookEvery, lookShare*time.Since(began)), lookAtLeast))
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

// learn keeps one result of a check that still belongs to the state.
func (c *Controller) learn(r health.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, check := range c.state.Balancer.Checks {
		if check.ID != r.ID {
			continue
		}
		was := c.health[r.ID]
		c.health[r.ID] = r
		c.retarget = c.retarget || r.State != was.State
		switch {
		case r.State == health.Up && was.State == health.Up && r.Answer == was.Answer: // what was presumed is so
		case r.State == health.Up && was.State == health.Up:
			c.cfg.Log.Info("real server asks for another weight", "guest", check.Guest, "check", r.ID, "weight", r.Weight)
		case r.State == health.Up:
			c.cfg.Log.Info("real server is up", "guest", check.Guest, "check", r.ID, "took", r.Took.Round(time.Microsecond))
		default:
			c.cfg.Log.Warn("real server is down", "guest", check.Guest, "check", r.ID, "reason", r.Reason)
		}
		return
	}
}

// Apply takes over a wanted state. It waits a little for the director to reach it; the status says whether it has. A state for another
// role is not taken, which the status says too.
func (c *Controller) Apply(ctx context.Context, a channel.Apply) (channel.Status, error) {
	if a.Role == policy.RoleRealServer {
		s, err := c.Status(ctx, channel.Query{})
		s.Error = "its image is a director's: it runs no service"
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

// Shutdown ends the machine.
func (c *Controller) Shutdown(_ context.Context, s channel.Shutdown) error {
	c.cfg.Log.Info("the blade asks for the end", "reboot", s.Reboot)
	c.cfg.End(s.Reboot)
	return nil
}

// Alive says when the loop last came round: what watches the process asks, so that a loop that is stuck counts as hung.
func (c *Controller) Alive() time.Time { return time.Unix(0, c.alive.Load()) }

// watchPlace wakes the loop when addresses or interfaces change. Between two watches, and without one, the loop still looks by
// itself.
func (c *Controller) watchPlace(ctx context.Context) {
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

func (c *Controller) watchAnnouncer(ctx context.Context) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		status := c.cfg.Announcer.Observe(ctx)
		c.mu.Lock()
		c.announce = status
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
