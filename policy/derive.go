package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Derive works out the whole wanted state of one blade. It is pure: the same fleet gives the same bytes. The only error
// is an unknown blade. Of a fleet that did not pass Check it derives what can be told, for which nobody vouches.
func Derive(f *Fleet, name BladeName) (Blade, error) {
	entry := f.Blade(name)
	if entry == nil {
		return Blade{}, fmt.Errorf("derive blade %s: not in the policy", name)
	}
	d := &deriver{f: f, blade: entry}
	d.zone()
	b := Blade{
		Name: entry.Name, Site: entry.Site, Zone: entry.Zone, Trunk: entry.Trunk, Management: entry.Management,
		Segments: d.segments(), Peers: d.peers(), Services: d.filterServices(),
		GuestAddresses: slices.Clone(f.index.addresses),
	}
	b.Guests = d.guests()
	b.Rules = d.rules(f.Rules, true)
	b.Hosts = d.rules(f.Hosts, false)
	return b, nil
}

// deriver holds what the parts of one derivation share.
type deriver struct {
	f           *Fleet
	blade       *BladeEntry
	directors   []*Director     // of the zone, by name
	realServers []*RealServer   // of the zone, by name
	services    []*ServiceEntry // of the zone, by name
	serves      map[GuestName][]ServiceName
}

// zone gathers what belongs to the blade's zone. Guests belong to the zone of their blade.
func (d *deriver) zone() {
	d.serves = map[GuestName][]ServiceName{}
	for i := range d.f.Directors {
		if g := &d.f.Directors[i]; d.inZone(g.Blade) {
			d.directors = append(d.directors, g)
		}
	}
	for i := range d.f.RealServers {
		g := &d.f.RealServers[i]
		if !d.inZone(g.Blade) {
			continue
		}
		d.realServers = append(d.realServers, g)
		for _, s := range g.Serves {
			d.serves[g.Name] = append(d.serves[g.Name], s.Service)
		}
	}
	for i := range d.f.Services {
		s := &d.f.Services[i]
		if s.Zone != d.blade.Zone {
			continue
		}
		d.services = append(d.services, s)
		if s.Sorry != "" {
			d.serves[s.Sorry] = append(d.serves[s.Sorry], s.Name)
		}
	}
	for g, list := range d.serves {
		slices.Sort(list)
		d.serves[g] = slices.Compact(list)
	}
}

func (d *deriver) inZone(name BladeName) bool {
	b := d.f.index.blades[name]
	return b != nil && b.Zone == d.blade.Zone
}

func (d *deriver) segments() []Segment {
	out := []Segment{}
	for i := range d.f.Networks {
		n := &d.f.Networks[i]
		if n.Zone != d.blade.Zone || !n.at(d.blade.Site) {
			continue
		}
		out = append(out, Segment{
			Network: n.Name, Role: n.Role, VLAN: n.VLAN, Link: VLANLink(n.VLAN), Bridge: BridgeName(n.VLAN),
			Subnets: sortedPrefixes(n.Subnets), Routers: sortedAddrs(n.Routers),
		})
	}
	return out
}

// peers lists every guest interface of the zone, by guest, then interface.
func (d *deriver) peers() []Peer {
	out := make([]Peer, 0, 2*(len(d.directors)+len(d.realServers)))
	for _, g := range d.directors {
		out = d.peer(out, g.guest())
	}
	for _, g := range d.realServers {
		out = d.peer(out, g.guest())
	}
	slices.SortStableFunc(out, func(a, b Peer) int { return cmp.Compare(a.Guest, b.Guest) })
	return out
}

func (d *deriver) peer(out []Peer, g GuestEntry) []Peer {
	site := d.siteOf(g.Blade)
	for i, a := range []Attachment{g.Eth0, g.Eth1} {
		iface := interfaceNames[i]
		out = append(out, Peer{
			Guest: g.Name, Role: g.Role, Blade: g.Blade, Site: site, Interface: iface, Network: a.Network, MAC: MACOf(g.Name, iface),
			Addresses: sortedAddrs(a.Addresses), Serves: slices.Clone(d.serves[g.Name]),
		})
	}
	return out
}

var interfaceNames = [2]string{"eth0", "eth1"}

func (d *deriver) filterServices() []Service {
	out := make([]Service, 0, len(d.services))
	for _, s := range d.services {
		var names []GuestName
		for _, g := range d.f.index.servers[s.Name] {
			names = append(names, g.Name)
		}
		if s.Sorry != "" {
			names = append(names, s.Sorry)
		}
		slices.Sort(names)
		out = append(out, Service{
			Name: s.Name, VIPs: sortedAddrs(s.VIPs), Ports: sortedPorts(s.Ports), Clients: slices.Clone(s.Clients),
			Servers: slices.Compact(names), Checks: probes(s), Pos: s.Pos,
		})
	}
	return out
}

// probes lists what directors probe at a service's real servers. A name server that also serves TCP is asked again there when
// an answer is cut short; a program is taken to speak the protocols in which the service has its port.
func probes(s *ServiceEntry) []PortRange {
	if s.Check == nil {
		return nil
	}
	port := s.Check.Port
	served := func(proto Protocol) bool {
		return slices.ContainsFunc(s.Ports, func(r PortRange) bool { return r.Protocol == proto && r.First <= port && port <= r.Last })
	}
	tcp, udp := true, false
	switch s.Check.Kind {
	case "dns":
		tcp, udp = served(TCP), true
	case "script":
		udp = served(UDP)
		tcp = served(TCP) || !udp
	}
	var out []PortRange
	if tcp {
		out = append(out, PortRange{Protocol: TCP, First: port, Last: port})
	}
	if udp {
		out = append(out, PortRange{Protocol: UDP, First: port, Last: port})
	}
	return out
}

// network returns the network of an interface; an empty one in a fleet that did not pass its check.
func (d *deriver) network(a Attachment) *Network {
	if n := d.f.Network(a.Network); n != nil {
		return n
	}
	return &Network{}
}

func sortedPrefixes(list []netip.Prefix) []netip.Prefix {
	out := slices.Clone(list)
	slices.SortFunc(out, comparePrefix)
	return out
}

func sortedAddrs(list []netip.Addr) []netip.Addr {
	out := slices.Clone(list)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func sortedPorts(list []PortRange) []PortRange {
	out := slices.Clone(list)
	slices.SortFunc(out, comparePorts)
	return slices.Compact(out)
}

func comparePorts(a, b PortRange) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
}

// guests lists the blade's own guests, by name.
func (d *deriver) guests() []Guest {
	out := []Guest{}
	for _, g := range d.directors {
		if g.Blade == d.blade.Name {
			out = append(out, d.director(g))
		}
	}
	for _, g := range d.realServers {
		if g.Blade == d.blade.Name {
			out = append(out, d.realServer(g))
		}
	}
	slices.SortStableFunc(out, func(a, b Guest) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (d *deriver) director(g *Director) Guest {
	balancer := d.balancer(g)
	var serves []ServiceName
	for _, s := range d.services {
		serves = append(serves, s.Name)
	}
	return Guest{
		Name: g.Name, Role: RoleDirector, Driver: DriverKVM, Image: g.Image, Memory: g.Memory, CPUs: g.CPUs, CID: CIDOf(g.Name),
		Ports:  d.ports(g.guest(), DriverKVM),
		Inside: d.inside(g.guest(), serves, directorSysctls()), Balancer: &balancer, Pos: g.Pos,
	}
}

func (d *deriver) realServer(g *RealServer) Guest {
	return Guest{
		Name: g.Name, Role: RoleRealServer, Driver: DriverLXC, Image: g.Image, Memory: g.Memory, CPUs: g.CPUs,
		Ports: d.ports(g.guest(), DriverLXC), Serves: slices.Clone(d.serves[g.Name]),
		Inside: d.inside(g.guest(), d.serves[g.Name], insideSysctls()), Pos: g.Pos,
	}
}

func (d *deriver) ports(g GuestEntry, driver Driver) []Port {
	var out []Port
	for i, a := range []Attachment{g.Eth0, g.Eth1} {
		n, iface := d.network(a), interfaceNames[i]
		out = append(out, Port{
			Name: PortName(g.Name, iface), Guest: g.Name, Role: g.Role, Driver: driver, Interface: iface, Network: a.Network, VLAN: n.VLAN,
			Bridge: BridgeName(n.VLAN), MAC: MACOf(g.Name, iface), Addresses: sortedAddrs(a.Addresses),
		})
	}
	return out
}

// inside is what goes into a guest that has the VIPs of some services.
func (d *deriver) inside(g GuestEntry, services []ServiceName, sysctls []Sysctl) Inside {
	in := Inside{Hostname: string(g.Name), VIPs: d.vips(services), Sysctls: sysctls}
	for i, a := range []Attachment{g.Eth0, g.Eth1} {
		n := d.network(a)
		x := Interface{Name: interfaceNames[i], MAC: MACOf(g.Name, interfaceNames[i])}
		for _, addr := range sortedAddrs(a.Addresses) {
			if p, ok := n.prefixOf(addr); ok {
				x.Addresses = append(x.Addresses, p)
			}
		}
		in.Interfaces = append(in.Interfaces, x)
	}
	in.Routes = defaultRoutes(d.network(g.Eth0), g.Eth0.Addresses)
	return in
}

// defaultRoutes go by the first router of each family in which the guest has an address on eth0.
func defaultRoutes(n *Network, own []netip.Addr) []Route {
	var out []Route
	for _, dest := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		sameFamily := func(a netip.Addr) bool { return a.Is4() == dest.Addr().Is4() }
		i := slices.IndexFunc(n.Routers, sameFamily)
		if i >= 0 && slices.ContainsFunc(own, sameFamily) {
			out = append(out, Route{Destination: dest, Via: n.Routers[i], Interface: "eth0"})
		}
	}
	return out
}

// vips lists the addresses of services, each once, with the services behind it.
func (d *deriver) vips(services []ServiceName) []VIP {
	behind := map[netip.Addr][]ServiceName{}
	for _, name := range services {
		if s := d.f.Service(name); s != nil {
			for _, a := range s.VIPs {
				behind[a] = append(behind[a], name)
			}
		}
	}
	var out []VIP
	for a, names := range behind {
		slices.Sort(names)
		out = append(out, VIP{Address: a, Services: slices.Compact(names)})
	}
	slices.SortFunc(out, func(a, b VIP) int { return a.Address.Compare(b.Address) })
	return out
}

// insideSysctls keep a guest from speaking ARP for its VIPs, let it take requests that come by another interface than the
// answers leave by, and make its addresses usable at once and by nobody's advertisement.
func insideSysctls() []Sysctl {
	out := []Sysctl{{"net/ipv4/conf/all/arp_ignore", "1"}, {"net/ipv4/conf/all/arp_announce", "2"}}
	for _, name := range []string{"all", "eth0", "eth1"} {
		out = append(out, Sysctl{"net/ipv4/conf/" + name + "/rp_filter", "0"})
	}
	for _, name := range []string{"all", "default", "eth0", "eth1"} {
		out = append(out, Sysctl{"net/ipv6/conf/" + name + "/accept_dad", "0"}, Sysctl{"net/ipv6/conf/" + name + "/accept_ra", "0"})
	}
	return out
}

// directorSysctls also keep a director from routing: direct routing leaves by IPVS, not by the forwarding path.
func directorSysctls() []Sysctl {
	return append(insideSysctls(), Sysctl{"net/ipv4/ip_forward", "0"})
}
