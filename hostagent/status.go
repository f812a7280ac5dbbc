package hostagent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/quota"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/doctor"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Status reads the blade back and says how it is. A part that cannot be read is left empty and is among what is waiting.
func (a *Agent) Status(ctx context.Context) (api.Status, error) {
	now := a.wantedNow()
	s, err := a.observed(ctx, now)
	s.Pending = a.pending(now)
	return s, err
}

// observed is the status without the policy folder.
func (a *Agent) observed(ctx context.Context, now wanted) (api.Status, error) {
	a.mu.Lock()
	passed, failed := a.passed, a.failed
	s := api.Status{
		Version: api.Version, Blade: a.cfg.Blade, Site: now.blade.Site, Zone: now.blade.Zone, Trunk: now.blade.Trunk, Revision: now.revision.Number,
		Waiting: slices.Clone(a.waiting), Links: []api.Link{}, Guests: []api.Guest{}, Services: []api.Service{},
	}
	a.mu.Unlock()
	if t := now.revision.Trial; t != nil {
		s.Trial = &api.Trial{Back: t.Back, Verified: t.Verified, Deadline: t.Deadline}
	}
	s.Converged = passed && !failed && len(s.Waiting) == 0 && len(a.stopped.unfinished()) == 0
	if now.revision.Number == 0 {
		return s, nil
	}
	if have, err := a.cfg.Links.Observe(ctx); err == nil {
		s.Links = linkStatus(now.blade, have)
	}
	have, err := guests.Observe(ctx, a.cfg.Drivers, a.cfg.Images, now.blade.Guests)
	if err != nil {
		return s, err
	}
	for _, g := range now.blade.Guests {
		s.Guests = append(s.Guests, a.guestStatus(g, have))
		s.Services = append(s.Services, a.serviceStatus(g)...)
	}
	if err := a.filterStatus(ctx, now.blade, &s.Filter); err != nil {
		step := plan.Step{Subsystem: "filter", Verb: plan.Blocked, Object: "counters", Reason: "cannot be read"}
		s.Waiting = append(s.Waiting, api.Waiting{Step: step, Error: err.Error(), Since: time.Now()})
		s.Converged = false
	}
	return s, nil
}

// Doctor looks at the host, and fixes what is safe when it is asked to.
func (a *Agent) Doctor(ctx context.Context, r api.DoctorRequest) api.Doctor {
	a.mu.Lock()
	h := doctor.Host{
		Root: a.host, Blade: a.now.blade, Policy: a.cfg.Policy, State: a.cfg.State, Images: a.cfg.Store, Owners: doctor.TryOwners, Quotas: quota.Kept, Features: a.cfg.Filter.Features, Waiting: slices.Clone(a.waiting),
	}
	a.mu.Unlock()
	out := api.Doctor{Version: api.Version, Blade: a.cfg.Blade, Findings: doctor.Run(ctx, h, r.Fix)}
	if r.Fix {
		a.Wake()
	}
	return out
}

// pending says why the policy folder is not what is in force.
func (a *Agent) pending(now wanted) string {
	files, err := policy.ReadDir(a.cfg.Policy)
	if err != nil {
		return "the policy folder cannot be read: " + err.Error()
	}
	if now.revision.Number > 0 && sameFiles(files, now.revision.Files) {
		return ""
	}
	_, found := a.derive(files)
	errs := 0
	for _, d := range found {
		if d.Severity == policy.SeverityError {
			errs++
		}
	}
	switch {
	case errs > 0:
		return fmt.Sprintf("the policy folder has %d mistakes (`bladectl check %s`); the blade stays as it was", errs, a.cfg.Policy)
	case now.revision.Number == 0:
		return "no revision yet: `bladectl apply`"
	}
	return "the policy folder differs from the revision in force: `bladectl plan` shows how, `bladectl apply` makes it so"
}

func linkStatus(blade policy.Blade, have bridges.State) []api.Link {
	var out []api.Link
	for _, seg := range blade.Segments {
		l := api.Link{Bridge: seg.Bridge, VLAN: seg.VLAN, Network: seg.Network, Uplink: seg.Link, Ports: []api.Port{}}
		for _, g := range blade.Guests {
			for _, p := range g.Ports {
				if p.Bridge != seg.Bridge {
					continue
				}
				if link, ok := have.Links[p.Name]; ok && link.Master == seg.Bridge {
					l.Ports = append(l.Ports, api.Port{Name: p.Name, Guest: p.Guest, Interface: p.Interface, MAC: p.MAC, Up: link.Up})
				}
			}
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(x, y api.Link) int { return cmp.Compare(x.VLAN, y.VLAN) })
	return out
}

func (a *Agent) guestStatus(g policy.Guest, have guests.State) api.Guest {
	s := api.Guest{Name: g.Name, Role: g.Role, Driver: g.Driver, Image: g.Image, State: "absent", Drained: g.Drained}
	s.Build, s.NewerBuild = have.Builds(g)
	for _, o := range have.Guests {
		if o.Name == g.Name && o.Driver == g.Driver {
			s.State, s.Since = string(o.Phase), o.Since
		}
	}
	if how, ok := a.stopped.get(g.Name); ok && !how.Draining {
		s.Held = byOperator
	} else if g.Spare {
		s.Held = a.spares.reason(g.Name)
	}
	for _, p := range g.Ports {
		for _, addr := range p.Addresses {
			s.Addresses = append(s.Addresses, addr.String())
		}
	}
	answer, ok := a.helpers.last(g.Name)
	switch {
	case g.Balancer != nil:
		s.Director = directorStatus(g.Balancer.Announce, answer, ok)
	case g.Driver == policy.DriverKVM:
		s.Machine = machineStatus(answer, ok)
	}
	return s
}

// directorStatus is the last word of a director that should announce so; ok says whether there is one.
func directorStatus(wanted policy.Announce, answer directorAnswer, ok bool) *api.Director {
	out := &api.Director{}
	if !ok {
		return out
	}
	out.Answering, out.InForce, out.Seen = answer.answers(), answer.inForce, answer.seen
	out.Protocol, out.Holds = answer.status.Announce.Protocol, answer.status.Announce.Holds
	out.Neighbors, out.Error = answer.status.Announce.Full4+answer.status.Announce.Full6, answer.problem()
	if ready, why := pairReady(answer.status.Announce); wanted.VRRP != nil && out.InForce && out.Error == "" && !ready {
		out.Error = why
	}
	return out
}

// machineStatus is the last word of a real server that is a virtual machine; ok says whether there is one.
func machineStatus(answer directorAnswer, ok bool) *api.Machine {
	out := &api.Machine{}
	if !ok {
		return out
	}
	out.Answering, out.InForce, out.Seen, out.Error = answer.answers(), answer.inForce, answer.seen, answer.problem()
	if s := answer.status.Server; s != nil {
		out.Running, out.Restarts, out.Ended = s.Running, s.Restarts, s.Ended
	}
	return out
}

// serviceStatus is what a director of this blade says that it balances.
func (a *Agent) serviceStatus(g policy.Guest) []api.Service {
	answer, ok := a.helpers.last(g.Name)
	if !ok || answer.err != nil {
		return nil
	}
	var out []api.Service
	for _, v := range answer.status.Services {
		s := api.Service{
			Director: g.Name, Service: v.Service, VIP: v.VIP.String(), Protocol: v.Protocol, Port: v.Port,
			Up: v.Up, Announced: v.Announced, Destinations: []api.Destination{},
		}
		for _, d := range v.Destinations {
			s.Destinations = append(s.Destinations, api.Destination{
				Guest: d.Guest, Address: d.Address.String(), Weight: d.Weight, Up: d.Up, Unheard: d.Unheard, Reason: d.Reason, Load: loadOf(d.Load),
			})
		}
		out = append(out, s)
	}
	return out
}

func loadOf(l channel.Load) api.Load {
	return api.Load{Active: l.Active, Inactive: l.Inactive, NewRate: l.NewRate, Packets: l.Packets, Bytes: l.Bytes, Total: api.Total(l.Total)}
}

func (a *Agent) filterStatus(ctx context.Context, blade policy.Blade, s *api.Filter) error {
	counters, err := a.cfg.Filter.Counters(ctx)
	if err != nil {
		return fmt.Errorf("read filter counters: %w", err)
	}
	s.Dropped = map[string]uint64{}
	for reason, c := range counters.Reasons {
		s.Dropped[string(reason)] = c.Packets
	}
	s.Ports = map[string]map[string]uint64{}
	for port, reasons := range counters.Ports {
		for reason, c := range reasons {
			if c.Packets == 0 {
				continue
			}
			if s.Ports[port] == nil {
				s.Ports[port] = map[string]uint64{}
			}
			s.Ports[port][string(reason)] = c.Packets
		}
	}
	var vips []netip.Addr
	for _, service := range blade.Services {
		vips = append(vips, service.VIPs...)
	}
	if s.VIPConntrack, err = a.cfg.Filter.VIPConntrack(ctx, vips); err != nil {
		return fmt.Errorf("count conntrack entries of VIPs: %w", err)
	}
	return nil
}
