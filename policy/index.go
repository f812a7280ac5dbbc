package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// fleetIndex finds entries by name. It is made once, so that Derive does work in proportion to the blade's zone.
type fleetIndex struct {
	zones       map[ZoneName]*Zone
	sites       map[SiteName]*Site
	networks    map[NetworkName]*Network
	blades      map[BladeName]*BladeEntry
	services    map[ServiceName]*ServiceEntry
	directors   map[GuestName]*Director
	realServers map[GuestName]*RealServer
	servers     map[ServiceName][]server    // sorted by guest
	sorry       map[GuestName][]ServiceName // services that a guest is the sorry server of, sorted
}

// server is one real server's part in one service.
type server struct {
	*RealServer
	weight int
	pos    Pos
}

func byName[N ~string, T any](list []T, name func(*T) N) map[N]*T {
	m := make(map[N]*T, len(list))
	for i := range list {
		m[name(&list[i])] = &list[i]
	}
	return m
}

func makeIndex(f *Fleet) fleetIndex {
	x := fleetIndex{
		zones:       byName(f.Zones, func(z *Zone) ZoneName { return z.Name }),
		sites:       byName(f.Sites, func(s *Site) SiteName { return s.Name }),
		networks:    byName(f.Networks, func(n *Network) NetworkName { return n.Name }),
		blades:      byName(f.Blades, func(b *BladeEntry) BladeName { return b.Name }),
		services:    byName(f.Services, func(s *ServiceEntry) ServiceName { return s.Name }),
		directors:   byName(f.Directors, func(d *Director) GuestName { return d.Name }),
		realServers: byName(f.RealServers, func(s *RealServer) GuestName { return s.Name }),
		servers:     make(map[ServiceName][]server, len(f.Services)),
		sorry:       map[GuestName][]ServiceName{},
	}
	for i := range f.RealServers {
		g := &f.RealServers[i]
		for _, s := range g.Serves {
			x.servers[s.Service] = append(x.servers[s.Service], server{g, s.Weight, s.Pos})
		}
	}
	for i := range f.Services {
		if s := &f.Services[i]; s.Sorry != "" {
			x.sorry[s.Sorry] = append(x.sorry[s.Sorry], s.Name)
		}
	}
	return x
}

// Network returns the network of that name, nil when there is none.
func (f *Fleet) Network(name NetworkName) *Network { return f.index.networks[name] }

// Blade returns the blade of that name, nil when there is none.
func (f *Fleet) Blade(name BladeName) *BladeEntry { return f.index.blades[name] }

// Service returns the service of that name, nil when there is none.
func (f *Fleet) Service(name ServiceName) *ServiceEntry { return f.index.services[name] }

// Director returns the director of that name, nil when there is none.
func (f *Fleet) Director(name GuestName) *Director { return f.index.directors[name] }

// RealServer returns the real server of that name, nil when there is none.
func (f *Fleet) RealServer(name GuestName) *RealServer { return f.index.realServers[name] }

// GuestEntry is what directors and real servers have in common.
type GuestEntry struct {
	Name   GuestName
	Role   Role
	Driver Driver
	Blade  BladeName
	Eth0   Attachment
	Eth1   Attachment
	Pos    Pos

	macs [2]MAC // of eth0 and eth1
	sync int    // of a director
	vrrp *VRRP  // of a director
}

// addresses lists the guest's addresses on both interfaces.
func (g *GuestEntry) addresses() []netip.Addr {
	return slices.Concat(g.Eth0.Addresses, g.Eth1.Addresses)
}

// Guest returns what a guest of that name has in common with all guests.
func (f *Fleet) Guest(name GuestName) (GuestEntry, bool) {
	if d := f.index.directors[name]; d != nil {
		return d.guest(), true
	}
	if s := f.index.realServers[name]; s != nil {
		return s.guest(), true
	}
	return GuestEntry{}, false
}

// Guests returns every guest of the fleet, sorted by name.
func (f *Fleet) Guests() []GuestEntry {
	directors, servers := make([]GuestEntry, len(f.Directors)), make([]GuestEntry, len(f.RealServers))
	for i := range f.Directors {
		directors[i] = f.Directors[i].guest()
	}
	for i := range f.RealServers {
		servers[i] = f.RealServers[i].guest()
	}
	return mergeTwo(directors, servers, func(a, b GuestEntry) int { return cmp.Compare(a.Name, b.Name) })
}

func (d *Director) guest() GuestEntry {
	return GuestEntry{Name: d.Name, Role: RoleDirector, Driver: DriverKVM, Blade: d.Blade, Eth0: d.Eth0, Eth1: d.Eth1, Pos: d.Pos, macs: d.macs, sync: d.Sync, vrrp: d.VRRP}
}

func (s *RealServer) guest() GuestEntry {
	return GuestEntry{Name: s.Name, Role: RoleRealServer, Driver: s.Driver, Blade: s.Blade, Eth0: s.Eth0, Eth1: s.Eth1, Pos: s.Pos, macs: s.macs}
}

// at reports whether the network is carried to a site.
func (n *Network) at(site SiteName) bool { return n.Sites == nil || slices.Contains(n.Sites, site) }

// prefixOf returns an address of the network with its subnet's length.
func (n *Network) prefixOf(a netip.Addr) (netip.Prefix, bool) {
	for _, s := range n.Subnets {
		if s.Contains(a) {
			return netip.PrefixFrom(a, s.Bits()), true
		}
	}
	return netip.Prefix{}, false
}
