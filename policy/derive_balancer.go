package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
)

// sorryWeight is a sorry server's weight once it is used: it is alone then, and any weight but 0 means the same.
const sorryWeight = 100

// balancing is what every director of a blade does for one service after another, kept up as services change.
type balancing struct {
	services []VirtualService // by address, protocol, port
	checks   []Check          // by ID
	sysctls  []Sysctl
	parts    map[ServiceName]balanced
	asked    map[string]int // how many services need a check, by its ID
}

// balanced is one service's part in it.
type balanced struct {
	services []VirtualService // by address, protocol, port
	checks   []Check          // by ID, each once
}

func compareVirtual(x, y VirtualService) int {
	return cmp.Or(x.VIP.Compare(y.VIP), cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Port, y.Port))
}

func compareCheck(x, y Check) int { return cmp.Compare(x.ID, y.ID) }

func sameCheck(x, y Check) bool { return x.ID == y.ID }

// balancer is what runs in one director.
func (b *balancing) balancer(a Announce, sync int) *Balancer {
	return &Balancer{Services: b.services, Checks: b.checks, Announce: a, Sysctls: b.sysctls, Sync: sync}
}

// update brings services, by name, up to what the fleet says of them; one that is not the zone's any more leaves.
func (b *balancing) update(d *deriver, names []ServiceName) {
	var gone, fresh []VirtualService
	var goneChecks, freshChecks []Check
	for _, name := range names {
		old := b.parts[name]
		var now balanced
		if s := d.f.Service(name); s != nil && s.Zone == d.blade.Zone {
			now = d.balanced(s)
			b.parts[name] = now
		} else {
			delete(b.parts, name)
		}
		gone, fresh = append(gone, old.services...), append(fresh, now.services...)
		goneChecks, freshChecks = append(goneChecks, old.checks...), append(freshChecks, now.checks...)
	}
	for _, c := range goneChecks {
		b.asked[c.ID]--
	}
	for _, c := range freshChecks {
		b.asked[c.ID]++
	}
	// A check that another service still needs stays.
	goneChecks = slices.DeleteFunc(goneChecks, func(c Check) bool { return b.asked[c.ID] > 0 })
	for _, c := range goneChecks {
		delete(b.asked, c.ID)
	}
	slices.SortFunc(gone, compareVirtual)
	slices.SortFunc(fresh, compareVirtual)
	b.services = patch(b.services, gone, fresh, itself, compareVirtual)
	slices.SortFunc(freshChecks, compareCheck)
	freshChecks = slices.CompactFunc(freshChecks, sameCheck)
	goneChecks = append(goneChecks, freshChecks...)
	slices.SortFunc(goneChecks, compareCheck)
	b.checks = patch(b.checks, goneChecks, freshChecks, itself, compareCheck)
	b.sysctls = d.ipvsSysctls()
}

// balanced makes one IPVS service for each port of each VIP, and the checks of their destinations.
func (d *deriver) balanced(s *ServiceEntry) balanced {
	var out balanced
	for _, vip := range s.VIPs {
		destinations, checks := d.destinations(s, vip.Is4())
		out.checks = append(out.checks, checks...)
		for _, r := range sortedPorts(s.Ports) {
			for port := int(r.First); port <= int(r.Last); port++ {
				at := slices.Clone(destinations)
				for i := range at {
					at[i].Port = uint16(port)
				}
				out.services = append(out.services, VirtualService{
					Service: s.Name, VIP: vip, Protocol: r.Protocol, Port: uint16(port), Scheduler: s.Scheduler, Flags: schedulerFlags(s),
					Persistence: s.Persistence, Mode: string(s.Mode), Quorum: s.Up, Hysteresis: s.Hysteresis,
					SlowStart: s.SlowStart, OnUp: s.OnUp, OnDown: s.OnDown, Destinations: at,
					Granularity: granularity(s, vip), OnePacket: s.OnePacket && r.Protocol == UDP,
				})
			}
		}
	}
	slices.SortFunc(out.services, compareVirtual)
	slices.SortFunc(out.checks, compareCheck)
	out.checks = slices.CompactFunc(out.checks, sameCheck)
	return out
}

// granularity is the length of the prefix whose clients persist together, 0 where that is the whole address or nothing persists.
func granularity(s *ServiceEntry, vip netip.Addr) int {
	length := s.Persistence6
	if vip.Is4() {
		length = s.Persistence4
	}
	if s.Persistence == 0 || length == vip.BitLen() {
		return 0
	}
	return length
}

// schedulerFlags make a table that every director fills the same way and that serves what a lost server leaves behind.
func schedulerFlags(s *ServiceEntry) []string {
	if s.Mode != ModeSurvive {
		return nil
	}
	return []string{s.Scheduler + "-port", s.Scheduler + "-fallback"}
}

// destinations lists who serves a service in one family, by address, with port 0, and how each is checked.
func (d *deriver) destinations(s *ServiceEntry, v4 bool) ([]Destination, []Check) {
	out := []Destination{}
	var checks []Check
	for _, g := range d.f.index.servers[s.Name] {
		a, ok := firstOf(g.Eth1.Addresses, v4)
		if !ok {
			continue
		}
		x := Destination{Guest: g.Name, Site: d.siteOf(g.Blade), Address: a, Weight: g.weight, Drained: g.Drain, Spare: g.Spare}
		if s.Mode == ModeLocality && x.Site != d.blade.Site {
			x.Weight, x.Remote = s.Remote.of(g.weight), g.weight
		}
		if s.Check != nil {
			c := s.Check.at(g.Name, a)
			x.Check = c.ID
			checks = append(checks, c)
		}
		out = append(out, x)
	}
	if sorry := d.f.RealServer(s.Sorry); sorry != nil {
		if a, ok := firstOf(sorry.Eth1.Addresses, v4); ok {
			out = append(out, Destination{Guest: sorry.Name, Site: d.siteOf(sorry.Blade), Address: a, Weight: sorryWeight, Sorry: true, Drained: sorry.Drain})
		}
	}
	slices.SortFunc(out, func(x, y Destination) int { return x.Address.Compare(y.Address) })
	return out, checks
}

// of returns a share of a weight, rounded up so that a share above 0 never becomes 0.
func (s Share) of(weight int) int { return (weight*int(s) + 99_999) / 100_000 }

func firstOf(list []netip.Addr, v4 bool) (netip.Addr, bool) {
	for _, a := range list {
		if a.Is4() == v4 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (d *deriver) siteOf(name BladeName) SiteName {
	if b := d.f.Blade(name); b != nil {
		return b.Site
	}
	return ""
}

// at makes the check of one server's address. Its ID names what is checked and digests how, so that it is stable and equal
// for every service that asks for the same.
func (c *CheckEntry) at(guest GuestName, a netip.Addr) Check {
	x := Check{
		Guest: guest, Kind: c.Kind, Address: a, Port: c.Port, Path: c.Path, Host: c.Host, Status: c.Status, Body: c.Body, Name: c.Name, Type: c.Type,
		SetsWeight: c.SetsWeight,
		Interval:   c.Interval, Timeout: c.Timeout, Rise: c.Rise, Fall: c.Fall,
	}
	how := fmt.Appendf(nil, "%q %q %d %q %q %d %d %d %d", x.Path, x.Host, x.Status, x.Name, x.Type, x.Interval, x.Timeout, x.Rise, x.Fall)
	if x.Body != "" {
		how = fmt.Appendf(how, " %q", x.Body)
	}
	if x.SetsWeight {
		how = append(how, " sets weight"...)
	}
	sum := sha256.Sum256(how)
	x.ID = x.Kind + "/" + netip.AddrPortFrom(a, x.Port).String() + "/" + hex.EncodeToString(sum[:4])
	return x
}

// ipvsSysctls are those of net/ipv4/vs (Documentation/networking/ipvs-sysctl.rst; schedule_icmp: net/netfilter/ipvs).
// sloppy_tcp lets a director take over a connection that it never saw begin: only a survive service wants that.
//
// drop_entry, drop_packet and secure_tcp stay off: they drop users' packets once less than 4 MiB are free, and take the page cache for
// memory that is not (update_defense_level in net/netfilter/ipvs/ip_vs_ctl.c), which a director that has run for long has little else than.
func (d *deriver) ipvsSysctls() []Sysctl {
	sloppy := "0"
	if slices.ContainsFunc(d.zoneServices(), func(s *ServiceEntry) bool { return s.Mode == ModeSurvive }) {
		sloppy = "1"
	}
	return []Sysctl{
		{"net/ipv4/vs/sloppy_tcp", sloppy},
		{"net/ipv4/vs/schedule_icmp", "1"},
		{"net/ipv4/vs/expire_nodest_conn", "1"},
		{"net/ipv4/vs/expire_quiescent_template", "1"},
	}
}

func (d *deriver) announce(g *Director) Announce {
	a := Announce{Routers: sortedAddrs(d.network(g.Eth0).Routers), Drained: g.Drain}
	a.RouterID, _ = firstOf(g.Eth0.Addresses, true)
	if g.OSPF != nil {
		o := *g.OSPF
		a.OSPF = &o
	}
	if g.BGP != nil {
		b := *g.BGP
		a.BGP = &b
	}
	if g.VRRP != nil {
		v := *g.VRRP
		a.VRRP = &v
	}
	return a
}
