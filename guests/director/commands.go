package director

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Program runs a file to its end or that of ctx, with arguments and environment.
type Program func(ctx context.Context, path string, args, env []string) error

// commandTimeout bounds one run of a quorum's program.
const commandTimeout = 30 * time.Second

// commands runs the programs that a policy wants run when a service gains its quorum and when it loses it, one after the other and
// never two at once. What a service did while another's program ran is not made up for: its last state counts.
type commands struct {
	log     *slog.Logger
	program Program
	wake    chan struct{}

	mu    sync.Mutex
	queue []ServiceKey            // whose turn comes, in this order
	state map[ServiceKey]*command // of every service that the policy has
}

// command is one service's program to run and what was run.
type command struct {
	service policy.VirtualService

	quorum bool
	queued bool
	told   bool // a program was run, for toldUp
	toldUp bool
}

func newCommands(log *slog.Logger, program Program) *commands {
	return &commands{log: log, program: program, wake: make(chan struct{}, 1), state: map[ServiceKey]*command{}}
}

// want takes a decision over. A service that settles has none.
func (c *commands) want(services []policy.VirtualService, d Decision, settling map[ServiceKey]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stays := make(map[ServiceKey]bool, len(services))
	for i, v := range services {
		key := KeyOf(v)
		if stays[key] = true; settling[key] {
			continue
		}
		x := c.state[key]
		if x == nil {
			x = &command{}
			c.state[key] = x
		}
		x.service, x.quorum = v, d.Services[i].Quorum
		if (!x.told || x.toldUp != x.quorum) && !x.queued {
			x.queued = true
			c.queue = append(c.queue, key)
		}
	}
	for key := range c.state {
		if !stays[key] {
			delete(c.state, key)
		}
	}
	if len(c.queue) > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// next takes the first service from the queue that has a program to run for its state.
func (c *commands) next() (v policy.VirtualService, path, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		x := c.state[c.queue[0]]
		c.queue = c.queue[1:]
		if x == nil {
			continue
		}
		x.queued = false
		if x.told && x.toldUp == x.quorum {
			continue
		}
		x.told, x.toldUp = true, x.quorum
		if path, state = x.service.OnDown, "down"; x.quorum {
			path, state = x.service.OnUp, "up"
		}
		if path != "" {
			return x.service, path, state
		}
	}
	return policy.VirtualService{}, "", ""
}

// run runs programs until ctx ends.
func (c *commands) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for ctx.Err() == nil {
			v, path, state := c.next()
			if path == "" {
				break
			}
			began := time.Now()
			err := c.once(ctx, v, path, state)
			if err != nil {
				c.log.Error("quorum program", "service", v.Service, "vip", v.VIP, "port", v.Port, "state", state, "program", path, "err", err)
				continue
			}
			c.log.Info("quorum program", "service", v.Service, "vip", v.VIP, "port", v.Port, "state", state, "program", path, "took", time.Since(began).Round(time.Millisecond))
		}
	}
}

func (c *commands) once(ctx context.Context, v policy.VirtualService, path, state string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	port := fmt.Sprintf("%d/%s", v.Port, v.Protocol)
	err := c.program(ctx, path, []string{state, string(v.Service), v.VIP.String(), port}, []string{
		"BLADENET_STATE=" + state, "BLADENET_SERVICE=" + string(v.Service), "BLADENET_VIP=" + v.VIP.String(), "BLADENET_PORT=" + port,
	})
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("not ended within %s", commandTimeout)
	}
	return err
}
