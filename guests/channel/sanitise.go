package channel

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// clean cuts text to limit bytes and replaces what is not printable ASCII, so that a guest can neither steer a terminal nor
// forge a line of a log.
func clean(text string, limit int) string {
	b := []byte(text)
	if len(b) > limit {
		b = b[:limit]
	}
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

func (r *Reply) sanitise() error {
	r.Error = clean(r.Error, maxText)
	if r.Hello != nil {
		r.Hello.Software = clean(r.Hello.Software, maxName)
	}
	if r.Status == nil {
		return nil
	}
	return r.Status.sanitise()
}

func (s *Status) sanitise() error {
	s.Software = clean(s.Software, maxName)
	s.Guest = policy.GuestName(clean(string(s.Guest), maxName))
	s.Revision = clean(s.Revision, maxText)
	s.Error = clean(s.Error, maxText)
	s.Uptime = max(s.Uptime, 0)
	if err := count("services", len(s.Services), maxServices); err != nil {
		return err
	}
	if err := count("vips", len(s.VIPs), maxVIPs); err != nil {
		return err
	}
	if err := inRange("omitted", s.Omitted, 1<<20); err != nil {
		return err
	}
	if err := inRange("checks", s.Checks, 1<<20); err != nil {
		return err
	}
	if err := count("probes", len(s.Probes), maxProbes); err != nil {
		return err
	}
	for i := range s.Probes {
		p := &s.Probes[i]
		p.ID = clean(p.ID, maxText)
		p.Guest = policy.GuestName(clean(string(p.Guest), maxName))
		p.Took = max(p.Took, 0)
	}
	for i := range s.VIPs {
		if err := address(s.VIPs[i].Address); err != nil {
			return err
		}
		s.VIPs[i].Reason = clean(s.VIPs[i].Reason, maxText)
	}
	destinations := 0
	for i := range s.Services {
		destinations += len(s.Services[i].Destinations)
		if err := count("destinations", destinations, maxDestinations); err != nil {
			return err
		}
		if err := s.Services[i].sanitise(); err != nil {
			return err
		}
	}
	if s.Server != nil {
		s.Server.Ended = clean(s.Server.Ended, maxText)
		if err := inRange("restarts", s.Server.Restarts, 1<<30); err != nil {
			return err
		}
	}
	return s.Announce.sanitise()
}

func (s *ServiceStatus) sanitise() error {
	s.Service = policy.ServiceName(clean(string(s.Service), maxName))
	if s.Protocol != policy.TCP && s.Protocol != policy.UDP {
		return fmt.Errorf("protocol %q is neither tcp nor udp", clean(string(s.Protocol), 16))
	}
	if err := address(s.VIP); err != nil {
		return err
	}
	for i := range s.Destinations {
		d := &s.Destinations[i]
		d.Guest = policy.GuestName(clean(string(d.Guest), maxName))
		d.Reason = clean(d.Reason, maxText)
		d.Since = cleanTime(d.Since)
		if err := address(d.Address); err != nil {
			return err
		}
		if err := inRange("connections", d.Active, math.MaxInt32); err != nil {
			return err
		}
		if err := inRange("connections", d.Inactive, math.MaxInt32); err != nil {
			return err
		}
		if err := inRange("weight", d.Weight, 65535); err != nil {
			return err
		}
	}
	return nil
}

func (a *AnnounceStatus) sanitise() error {
	switch a.Protocol {
	case "", "ospf", "bgp", "vrrp":
	default:
		return fmt.Errorf("announcing protocol %q is neither ospf, bgp nor vrrp", clean(a.Protocol, 16))
	}
	if err := count("held VIPs", len(a.Holds), maxVIPs); err != nil {
		return err
	}
	for _, v := range a.Holds {
		if err := address(v); err != nil {
			return err
		}
	}
	a.Error = clean(a.Error, maxText)
	if err := count("daemons", len(a.Daemons), maxDaemons); err != nil {
		return err
	}
	for i := range a.Daemons {
		a.Daemons[i].Name = clean(a.Daemons[i].Name, maxName)
		if err := inRange("restarts", a.Daemons[i].Restarts, 1<<30); err != nil {
			return err
		}
	}
	if err := inRange("full4", a.Full4, 1<<16); err != nil {
		return err
	}
	return inRange("full6", a.Full6, 1<<16)
}

// address refuses what no VIP or real server has; above all a zone, which is free text inside an address.
func address(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("address %q is not a plain IPv4 or IPv6 address", clean(a.String(), maxName))
	}
	return nil
}

// cleanTime drops the guest's time zone, whose name is free text, and times that no clock of a living machine shows.
func cleanTime(t time.Time) time.Time {
	if t.Year() < 1970 || t.Year() > 9000 {
		return time.Time{}
	}
	return t.UTC()
}

func count(what string, n, limit int) error {
	if n > limit {
		return fmt.Errorf("%d %s, at most %d", n, what, limit)
	}
	return nil
}

func inRange(what string, n, limit int) error {
	if n < 0 || n > limit {
		return fmt.Errorf("%s %d, want 0 to %d", what, n, limit)
	}
	return nil
}
