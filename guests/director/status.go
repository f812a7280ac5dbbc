package director

import (
	"context"
	"strings"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
)

// Status says how the director is, from what the last pass found. It never waits for one.
func (c *Controller) Status(context.Context) (channel.Status, error) {
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
	for i, v := range c.state.Balancer.Services {
		d := c.decision.Services[i]
		x := channel.ServiceStatus{
			Service: v.Service, VIP: v.VIP, Protocol: v.Protocol, Port: v.Port,
			Up: d.Quorum, Announced: c.held[v.VIP],
		}
		for j, dest := range v.Destinations {
			x.Destinations = append(x.Destinations, channel.DestinationStatus{
				Guest: dest.Guest, Address: dest.Address, Weight: d.Weights[j],
				Up: isUp(dest, c.health), Reason: d.Reasons[j], Since: c.health[dest.Check].Since,
			})
		}
		s.Services = append(s.Services, x)
	}
	return s, nil
}
