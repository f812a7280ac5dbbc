package director

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/policy"
)

// Status says how the director is, from what the last pass found. It never waits for one. Connections are counted now.
func (c *Controller) Status(ctx context.Context, q channel.Query) (channel.Status, error) {
	loads := c.loads(ctx, q.Count)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := channel.Status{
		Software: c.cfg.Software, Guest: c.state.Guest, Revision: c.state.Revision,
		Uptime: time.Since(c.started), Checks: len(c.state.Balancer.Checks), Announce: c.announce,
	}
	switch {
	case c.reached != c.wanted:
		s.Error = "this revision is being applied"
	case c.err != nil:
		s.Error = strings.ReplaceAll(c.err.Error(), "\n", "; ")
	}
	if c.reached != c.wanted {
		return s, nil // the decision is of another state
	}
	for _, v := range c.decision.VIPs {
		x := channel.VIPStatus{Address: v.Address, Up: c.held[v.Address], Reason: v.Reason}
		if v.Up && !x.Up {
			x.Reason = "not on the loopback"
		}
		s.VIPs = append(s.VIPs, x)
	}
	if q.Count {
		s.Probes = c.probes.status(c.state.Balancer.Checks, c.health)
	}
	for i, v := range c.state.Balancer.Services {
		d := c.decision.Services[i]
		x := channel.ServiceStatus{
			Service: v.Service, VIP: v.VIP, Protocol: v.Protocol, Port: v.Port,
			Up: d.Quorum, Short: d.Short, Announced: c.held[v.VIP] && !c.state.Balancer.Announce.Drained,
		}
		for j, dest := range v.Destinations {
			_, unheard := c.unheard[Hop{KeyOf(v), dest.Guest}]
			x.Destinations = append(x.Destinations, channel.DestinationStatus{
				Guest: dest.Guest, Address: dest.Address, Weight: d.Weights[j],
				Up: isUp(dest, c.health), Unheard: unheard, Reason: d.Reasons[j], Since: c.health[dest.Check].Since,
				Load: loads[ipvs.DestinationKey{Service: ipvs.KeyOf(v), Address: dest.Address, Port: dest.Port}],
			})
		}
		s.Services = append(s.Services, x)
	}
	return s, nil
}

// loads reads what each real server has to do when somebody wants to know or waits for connections to end: to read the table takes as
// long as it is large.
func (c *Controller) loads(ctx context.Context, asked bool) map[ipvs.DestinationKey]channel.Load {
	c.mu.Lock()
	b := c.state.Balancer
	c.mu.Unlock()
	if !asked && !draining(b) {
		return nil
	}
	table, err := c.cfg.Table.Observe(ctx)
	if err != nil {
		return nil // the next pass meets the same error, and says so
	}
	out := map[ipvs.DestinationKey]channel.Load{}
	for _, s := range table.Services {
		for _, d := range s.Destinations {
			out[ipvs.DestinationKey{Service: s.Key, Address: d.Address, Port: d.Port}] = channel.Load{
				Active: d.Active, Inactive: d.Inactive, NewRate: d.Rate.Connections, Packets: d.Rate.Packets, Bytes: d.Rate.Bytes,
				Total: channel.Total(d.Total),
			}
		}
	}
	return out
}

// draining reports whether the director, or a real server of it, is drained.
func draining(b policy.Balancer) bool {
	return b.Announce.Drained || slices.ContainsFunc(b.Services, func(v policy.VirtualService) bool {
		return slices.ContainsFunc(v.Destinations, func(d policy.Destination) bool { return d.Drained })
	})
}
