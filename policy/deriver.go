package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sort"
)

// Deriver derives one blade from one fleet after another. What it does at a call grows with what differs from the fleet of the
// call before: of all the rest it only compares entries and copies slices. The result is that of Derive for a fleet without
// errors. A Blade may share memory with the ones before it; none of them may be changed. It is for one goroutine at a time.
type Deriver struct {
	name      BladeName
	fleet     *Fleet
	blade     Blade
	addresses []netip.Addr // of the guests of the zone, sorted
	balancing *balancing   // nil: no director stands on the blade
}

// NewDeriver returns a deriver of one blade.
func NewDeriver(name BladeName) *Deriver { return &Deriver{name: name} }

// Derive works out the blade's whole wanted state, as the function Derive does. The only error is an unknown blade.
func (v *Deriver) Derive(f *Fleet) (Blade, error) {
	entry := f.Blade(v.name)
	if entry == nil {
		return Blade{}, fmt.Errorf("derive blade %s: not in the policy", v.name)
	}
	if v.fleet == nil || !sameGround(v.fleet, f) {
		*v = Deriver{name: v.name, fleet: &Fleet{}}
	}
	c := v.compare(f, entry)
	v.addresses = patch(v.addresses, addressesOf(c.before, c.ofZone), addressesOf(c.after, c.ofZone), itself, netip.Addr.Compare)
	b := Blade{
		Name: entry.Name, Site: entry.Site, Zone: entry.Zone, Trunk: entry.Trunk, Management: entry.Management,
		Segments: c.segments(),
		Guests:   c.guestsHere(v),
		Peers:    patch(v.blade.Peers, c.guests, c.freshPeers(), func(p *Peer) GuestName { return p.Guest }, cmp.Compare),
		Services: patch(v.blade.Services, c.services, c.freshServices(), func(s *Service) ServiceName { return s.Name }, cmp.Compare),
		Rules:    c.rules(v),
		Hosts:    c.hosts(),
		Alerts:   f.alertTargets(),

		GuestAddresses: patch(v.blade.GuestAddresses, addressesOf(c.before, c.everywhere), addressesOf(c.after, c.everywhere), itself, netip.Addr.Compare),
	}
	v.fleet, v.blade = f, b
	return b, nil
}

// alertTargets lists where alerts are sent, sorted, each once.
func (f *Fleet) alertTargets() []AlertTarget {
	var out []AlertTarget
	for _, a := range f.Alerts {
		out = append(out, a.AlertTarget)
	}
	slices.SortFunc(out, compareTargets)
	return slices.CompactFunc(out, func(a, b AlertTarget) bool { return compareTargets(a, b) == 0 })
}

func compareTargets(a, b AlertTarget) int {
	var m, n Mail
	if a.Mail != nil {
		m = *a.Mail
	}
	if b.Mail != nil {
		n = *b.Mail
	}
	return cmp.Or(
		cmp.Compare(a.Webhook, b.Webhook), cmp.Compare(a.Command, b.Command), cmp.Compare(m.Relay, n.Relay), cmp.Compare(m.From, n.From),
		slices.Compare(m.To, n.To), cmp.Compare(m.User, n.User), cmp.Compare(m.PasswordFile, n.PasswordFile),
	)
}

// sameGround reports whether two fleets have the same networks and blades: what everything else stands on.
func sameGround(a, b *Fleet) bool {
	return slices.EqualFunc(a.Networks, b.Networks, func(x, y Network) bool {
		return x.doc == y.doc || x.Name == y.Name && x.Zone == y.Zone && x.Role == y.Role && x.VLAN == y.VLAN && slices.Equal(x.Sites, y.Sites) &&
			(x.Sites == nil) == (y.Sites == nil) && slices.Equal(x.Subnets, y.Subnets) && slices.Equal(x.Routers, y.Routers)
	}) && slices.EqualFunc(a.Blades, b.Blades, func(x, y BladeEntry) bool {
		return x.doc == y.doc || x.Name == y.Name && x.Zone == y.Zone && x.Site == y.Site && x.Trunk == y.Trunk && x.Management == y.Management
	})
}

// change is one derivation and what differs between the fleet before and the fleet now, in all zones.
type change struct {
	deriver
	was      *Fleet
	guests   []GuestName   // sorted: guests that are new, gone, different, or serve something else
	services []ServiceName // sorted: services that are new, gone, different, or served differently
	before   []GuestEntry  // the guests as they were
	after    []GuestEntry  // and as they are
	loopback bool          // the VIPs of the zone differ, or how many services stand behind one
}

// compare finds what differs.
func (v *Deriver) compare(f *Fleet, entry *BladeEntry) *change {
	c := &change{deriver: deriver{f: f, blade: entry}, was: v.fleet}
	guests, services := map[GuestName]bool{}, map[ServiceName]bool{}
	differing(c.was.Services, f.Services, func(s *ServiceEntry) ServiceName { return s.Name }, sameService, func(old, now *ServiceEntry) {
		for _, s := range []*ServiceEntry{old, now} {
			if s == nil {
				continue
			}
			services[s.Name] = true
			if s.Sorry != "" {
				guests[s.Sorry] = true
			}
		}
		c.loopback = c.loopback || old == nil || now == nil || old.Zone != now.Zone || !slices.Equal(old.VIPs, now.VIPs)
	})
	touch := func(name GuestName) {
		guests[name] = true
		for _, fleet := range []*Fleet{c.was, f} {
			for _, s := range fleet.index.sorry[name] {
				services[s] = true
			}
		}
	}
	differing(c.was.Directors, f.Directors, func(g *Director) GuestName { return g.Name }, c.sameDirector, func(old, now *Director) {
		touch(cmp.Or(now, old).Name)
	})
	differing(c.was.RealServers, f.RealServers, func(g *RealServer) GuestName { return g.Name }, c.sameRealServer, func(old, now *RealServer) {
		touch(cmp.Or(now, old).Name)
		for _, g := range []*RealServer{old, now} {
			if g != nil {
				for _, s := range g.Serves {
					services[s.Service] = true
				}
			}
		}
	})
	c.guests, c.services = slices.Sorted(maps.Keys(guests)), slices.Sorted(maps.Keys(services))
	for _, name := range c.guests {
		if g, ok := c.was.Guest(name); ok {
			c.before = append(c.before, g)
		}
		if g, ok := f.Guest(name); ok {
			c.after = append(c.after, g)
		}
	}
	return c
}

// differing walks two lists, sorted by name, and calls each for what is not the same in both; what is missing in one is nil.
func differing[T any, N ~string](was, now []T, name func(*T) N, same func(a, b *T) bool, each func(was, now *T)) {
	for len(was) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(was) > 0 && name(&was[0]) < name(&now[0]):
			each(&was[0], nil)
			was = was[1:]
		case len(was) == 0 || name(&now[0]) < name(&was[0]):
			each(nil, &now[0])
			now = now[1:]
		default:
			if !same(&was[0], &now[0]) {
				each(&was[0], &now[0])
			}
			was, now = was[1:], now[1:]
		}
	}
}

// Entries of a file that was not read again share what was written. Places count only where they reach the blade's state.

func sameService(a, b *ServiceEntry) bool {
	if a.doc == b.doc {
		return true
	}
	x, y := *a, *b
	x.doc, y.doc = nil, nil
	return reflect.DeepEqual(x, y)
}

func sameAttachment(a, b Attachment) bool {
	return a.Network == b.Network && slices.Equal(a.Addresses, b.Addresses)
}

func (c *change) sameDirector(a, b *Director) bool {
	return a.doc == b.doc || a.Blade == b.Blade && a.Image == b.Image && a.Memory == b.Memory && a.CPUs == b.CPUs && a.Drain == b.Drain && a.Sync == b.Sync && sameAttachment(a.Eth0, b.Eth0) &&
		sameAttachment(a.Eth1, b.Eth1) && reflect.DeepEqual(a.OSPF, b.OSPF) && reflect.DeepEqual(a.BGP, b.BGP) && reflect.DeepEqual(a.VRRP, b.VRRP) && (a.Pos == b.Pos || a.Blade != c.blade.Name)
}

func (c *change) sameRealServer(a, b *RealServer) bool {
	return a.doc == b.doc || a.Blade == b.Blade && a.Image == b.Image && a.Memory == b.Memory && a.CPUs == b.CPUs && a.PIDs == b.PIDs && a.IOWeight == b.IOWeight && a.Disk == b.Disk && a.Drain == b.Drain && a.Spare == b.Spare && a.Driver == b.Driver && a.Privileged == b.Privileged && sameAttachment(a.Eth0, b.Eth0) &&
		sameAttachment(a.Eth1, b.Eth1) && (a.Pos == b.Pos || a.Blade != c.blade.Name) &&
		slices.EqualFunc(a.Serves, b.Serves, func(x, y Serve) bool { return x.Service == y.Service && x.Weight == y.Weight }) &&
		slices.Equal(volumesOf(a), volumesOf(b))
}

// patch returns a list, sorted by key, without the elements whose key is one of gone, and with fresh in their places; what stays
// is copied in runs. Both gone and fresh are sorted by key. The list itself is not changed.
func patch[T, K any](list []T, gone []K, fresh []T, key func(*T) K, compare func(a, b K) int) []T {
	if list != nil && len(gone)+len(fresh) == 0 {
		return list
	}
	out := make([]T, 0, len(list)+len(fresh))
	for len(gone)+len(fresh) > 0 {
		dropped := len(fresh) == 0 || len(gone) > 0 && compare(gone[0], key(&fresh[0])) <= 0
		var at K
		if dropped {
			at, gone = gone[0], gone[1:]
		} else {
			at = key(&fresh[0])
		}
		n := sort.Search(len(list), func(i int) bool { return compare(key(&list[i]), at) >= 0 })
		out, list = append(out, list[:n]...), list[n:]
		for dropped && len(list) > 0 && compare(key(&list[0]), at) == 0 {
			list = list[1:]
		}
		for len(fresh) > 0 && compare(key(&fresh[0]), at) == 0 {
			out, fresh = append(out, fresh[0]), fresh[1:]
		}
	}
	return append(out, list...)
}

// itself is the key of an element that is its own.
func itself[T any](x *T) T { return *x }

// addressesOf lists the addresses of guests, sorted, each once.
func addressesOf(guests []GuestEntry, which func(*GuestEntry) bool) []netip.Addr {
	var out []netip.Addr
	for i := range guests {
		if g := &guests[i]; which(g) {
			out = append(out, g.addresses()...)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (c *change) everywhere(*GuestEntry) bool { return true }

func (c *change) ofZone(g *GuestEntry) bool { return c.inZone(g.Blade) }

// freshPeers lists the interfaces of the zone's guests that differ, by guest, then interface.
func (c *change) freshPeers() []Peer {
	var out []Peer
	for _, g := range c.after {
		if c.inZone(g.Blade) {
			out = append(out, c.peers(g)...)
		}
	}
	return out
}

// freshServices lists the zone's services that differ, by name.
func (c *change) freshServices() []Service {
	var out []Service
	for _, name := range c.services {
		if s := c.f.Service(name); s != nil && s.Zone == c.blade.Zone {
			out = append(out, c.service(s))
		}
	}
	return out
}

// guestsHere lists the blade's own guests, by name.
func (c *change) guestsHere(v *Deriver) []Guest {
	c.balance(v)
	names := slices.Clone(c.guests)
	kept := map[GuestName]*Guest{} // directors whose own part stays
	for i := range v.blade.Guests {
		g := &v.blade.Guests[i]
		_, other := slices.BinarySearch(c.guests, g.Name)
		if g.Role == RoleDirector && !other && !c.loopback {
			kept[g.Name] = g
		}
		if g.Role == RoleDirector || slices.ContainsFunc(g.Serves, func(s ServiceName) bool { return contains(c.services, s) }) {
			names = append(names, g.Name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var fresh []Guest
	for _, name := range names {
		d, s := c.f.Director(name), c.f.RealServer(name)
		switch {
		case kept[name] != nil:
			g := *kept[name]
			g.Balancer = v.balancing.balancer(g.Balancer.Announce, g.Balancer.Sync)
			fresh = append(fresh, g)
		case d != nil && d.Blade == c.blade.Name:
			fresh = append(fresh, c.director(d, v.balancing))
		case s != nil && s.Blade == c.blade.Name:
			fresh = append(fresh, c.realServer(s))
		}
	}
	return patch(v.blade.Guests, names, fresh, func(g *Guest) GuestName { return g.Name }, cmp.Compare)
}

func contains[T cmp.Ordered](sorted []T, x T) bool {
	_, ok := slices.BinarySearch(sorted, x)
	return ok
}

// balance brings what the blade's directors do up to date, if it has any.
func (c *change) balance(v *Deriver) {
	if !slices.ContainsFunc(c.f.Directors, func(g Director) bool { return g.Blade == c.blade.Name }) {
		v.balancing = nil
		return
	}
	names := c.services
	if v.balancing == nil {
		v.balancing = &balancing{parts: map[ServiceName]balanced{}, asked: map[string]int{}}
		names = nil
		for _, s := range c.zoneServices() {
			names = append(names, s.Name)
		}
	}
	v.balancing.update(&c.deriver, names)
}
