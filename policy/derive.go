package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Derive works out the whole wanted state of one blade. It is pure: the same fleet gives the same bytes. The only error
// is an unknown blade. Of a fleet that did not pass Check it derives what can be told, for which nobody vouches. Who derives
// one blade again and again uses a Deriver.
func Derive(f *Fleet, name BladeName) (Blade, error) { return NewDeriver(name).Derive(f) }

// deriver holds what the parts of one derivation share.
type deriver struct {
	f     *Fleet
	blade *BladeEntry
}

func (d *deriver) inZone(name BladeName) bool {
	b := d.f.index.blades[name]
	return b != nil && b.Zone == d.blade.Zone
}

// zoneServices lists the services of the blade's zone, by name.
func (d *deriver) zoneServices() []*ServiceEntry {
	var out []*ServiceEntry
	for i := range d.f.Services {
		if s := &d.f.Services[i]; s.Zone == d.blade.Zone {
			out = append(out, s)
		}
	}
	return out
}

// serves lists what a guest answers for, as a sorry server too, by name.
func (d *deriver) serves(name GuestName) []ServiceName {
	var out []ServiceName
	if g := d.f.RealServer(name); g != nil {
		for _, s := range g.Serves {
			out = append(out, s.Service)
		}
	}
	for _, s := range d.f.index.sorry[name] {
		if d.f.Service(s).Zone == d.blade.Zone {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
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

// peers are a guest's two interfaces.
func (d *deriver) peers(g GuestEntry) []Peer {
	var out []Peer
	site, serves := d.siteOf(g.Blade), d.serves(g.Name)
	for i, a := range []Attachment{g.Eth0, g.Eth1} {
		out = append(out, Peer{
			Guest: g.Name, Role: g.Role, Blade: g.Blade, Site: site, Interface: interfaceNames[i], Network: a.Network, MAC: g.macs[i],
			Addresses: sortedAddrs(a.Addresses), Serves: slices.Clone(serves),
		})
	}
	out[1].Sync = g.sync
	if g.vrrp != nil {
		v := *g.vrrp
		out[0].VRRP = &v
	}
	return out
}

var interfaceNames = [2]string{"eth0", "eth1"}

// service is what the filter knows of a service.
func (d *deriver) service(s *ServiceEntry) Service {
	var names []GuestName
	for _, g := range d.f.index.servers[s.Name] {
		names = append(names, g.Name)
	}
	if s.Sorry != "" {
		names = append(names, s.Sorry)
	}
	slices.Sort(names)
	return Service{
		Name: s.Name, VIPs: sortedAddrs(s.VIPs), Ports: sortedPorts(s.Ports), Clients: slices.Clone(s.Clients),
		Servers: slices.Compact(names), Checks: probes(s), Pos: s.Pos,
	}
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

// director is one of the blade's own, with the balancer of its blade.
func (d *deriver) director(g *Director, b *balancing) Guest {
	var serves []ServiceName
	for _, s := range d.zoneServices() {
		serves = append(serves, s.Name)
	}
	inside := d.inside(g.guest(), serves, directorSysctls())
	if g.VRRP != nil {
		for _, v := range inside.VIPs {
			inside.Floating = append(inside.Floating, v.Address)
		}
	}
	return Guest{
		Name: g.Name, Role: RoleDirector, Driver: DriverKVM, Image: g.Image, Memory: g.Memory, CPUs: g.CPUs, CID: CIDOf(g.Name),
		Ports:  d.ports(g.guest(), DriverKVM),
		Inside: inside, Balancer: b.balancer(d.announce(g), g.Sync), Drained: g.Drain, Pos: g.Pos,
	}
}

func (d *deriver) realServer(g *RealServer) Guest {
	serves, sysctls := d.serves(g.Name), insideSysctls()
	out := Guest{
		Name: g.Name, Role: RoleRealServer, Driver: g.Driver, Image: g.Image, Memory: g.Memory, CPUs: g.CPUs, Privileged: g.Privileged,
		Ports: d.ports(g.guest(), g.Driver), Serves: serves, Drained: g.Drain, Spare: g.Spare, Pos: g.Pos, Volumes: volumesOf(g),
	}
	if g.Driver == DriverKVM {
		out.CID = CIDOf(g.Name)
	} else {
		out.PIDs, out.Disk = g.PIDs, g.Disk
		if g.IOWeight != defaultIOWeight {
			out.IOWeight = g.IOWeight
		}
		if !g.Privileged {
			sysctls = append(sysctls, unprivilegedSysctls()...)
		}
	}
	out.Inside = d.inside(g.guest(), serves, sysctls)
	return out
}

func volumesOf(g *RealServer) []Volume {
	var out []Volume
	for _, v := range g.Volumes {
		out = append(out, v.Volume)
	}
	return out
}

func (d *deriver) ports(g GuestEntry, driver Driver) []Port {
	var out []Port
	for i, a := range []Attachment{g.Eth0, g.Eth1} {
		n, iface := d.network(a), interfaceNames[i]
		out = append(out, Port{
			Name: PortName(g.Name, iface), Guest: g.Name, Role: g.Role, Driver: driver, Interface: iface, Network: a.Network, VLAN: n.VLAN,
			Bridge: BridgeName(n.VLAN), MAC: g.macs[i], Addresses: sortedAddrs(a.Addresses),
		})
	}
	return out
}

// inside is what goes into a guest that has the VIPs of some services.
func (d *deriver) inside(g GuestEntry, services []ServiceName, sysctls []Sysctl) Inside {
	in := Inside{Hostname: string(g.Name), VIPs: d.vips(services), Sysctls: sysctls}
	for i, a := range []Attachment{g.Eth0, g.Eth1} {
		n := d.network(a)
		x := Interface{Name: interfaceNames[i], MAC: g.macs[i]}
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

// unprivilegedSysctls let a container's servers have low ports and send pings. Its network namespace is the host's, where
// capabilities of a user namespace of its own count for nothing.
func unprivilegedSysctls() []Sysctl {
	return []Sysctl{{"net/ipv4/ip_unprivileged_port_start", "0"}, {"net/ipv4/ping_group_range", "0 2147483647"}}
}
