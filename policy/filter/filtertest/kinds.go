package filtertest

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

func (s *Source) user(v6 bool) netip.Addr {
	for {
		if a := netip.MustParseAddr(pick(s.rand, users)); a.Is6() == v6 {
			return a
		}
	}
}

func (s *Source) ephemeral() uint16 { return uint16(20000 + s.rand.IntN(40000)) }

func protocolOf(r policy.PortRange) uint8 {
	if r.Protocol == policy.UDP {
		return 17
	}
	return 6
}

// between makes a packet with MACs of its own: a guest's for a guest's port, a router's for the link.
func (s *Source) between(segment policy.Segment, in string, ip filter.IP) filter.Packet {
	etherType := uint16(0x0800)
	if ip.Source.Is6() {
		etherType = 0x86dd
	}
	if ip.HopLimit == 0 {
		ip.HopLimit = 64
	}
	if ip.Protocol == 6 && ip.Flags == 0 {
		ip.Flags = pick(s.rand, []policy.TCPFlags{policy.FlagSYN, policy.FlagSYN, policy.FlagACK, policy.FlagSYN | policy.FlagACK, policy.FlagRST})
	}
	p := filter.Packet{In: in, Source: RouterMAC, Destination: s.macOf(segment, ip.Destination), EtherType: etherType, IP: &ip}
	for _, port := range guestPorts(s.blade, segment) {
		if port.Name == in {
			p.Source = port.MAC
		}
	}
	return p
}

func (s *Source) macOf(segment policy.Segment, a netip.Addr) policy.MAC {
	for _, port := range guestPorts(s.blade, segment) {
		for _, own := range port.Addresses {
			if own == a {
				return port.MAC
			}
		}
	}
	if a.IsMulticast() && a.Is6() {
		b := a.As16()
		return policy.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	}
	if a.IsMulticast() {
		return policy.MAC{0x01, 0x00, 0x5e, 0, 0, a.As4()[3]}
	}
	return RouterMAC
}

func (s *Source) anyPort(segment policy.Segment) string {
	list := Ports(s.blade, segment)
	if len(list) > 2 && !s.one(8) {
		list = list[:len(list)-1]
	}
	return pick(s.rand, list)
}

func (s *Source) guestPort(segment policy.Segment) (policy.Port, bool) {
	list := guestPorts(s.blade, segment)
	if len(list) == 0 {
		return policy.Port{}, false
	}
	return pick(s.rand, list), true
}

func (s *Source) piece() filter.Piece {
	if s.one(8) {
		return pick(s.rand, []filter.Piece{filter.FirstFragment, filter.LaterFragment})
	}
	return filter.Whole
}

// request is a user's packet to a VIP, from the link to a guest.
func (s *Source) request(segment policy.Segment) filter.Packet {
	service := pick(s.rand, s.blade.Services)
	vip, r := pick(s.rand, service.VIPs), pick(s.rand, service.Ports)
	p := s.between(segment, segment.Link, filter.IP{
		Source: s.user(vip.Is6()), Destination: vip, Protocol: protocolOf(r), SourcePort: s.ephemeral(), DestinationPort: r.First, Piece: s.piece(),
	})
	if port, ok := s.guestPort(segment); ok {
		p.Destination = port.MAC
	}
	if segment.Role == policy.NetworkService && !s.one(6) {
		p.Source = s.director()
	}
	return p
}

func (s *Source) director() policy.MAC {
	var list []policy.MAC
	for _, peer := range s.blade.Peers {
		if peer.Role == policy.RoleDirector && peer.Interface == "eth1" {
			list = append(list, peer.MAC)
		}
	}
	if len(list) == 0 {
		return RouterMAC
	}
	return pick(s.rand, list)
}

// direct is a director's packet to a real server, with the user's address.
func (s *Source) direct(segment policy.Segment) filter.Packet {
	p := s.request(segment)
	if port, ok := s.guestPort(segment); ok {
		p.In, p.Source = port.Name, port.MAC
	}
	for _, service := range s.blade.Services {
		for _, peer := range s.blade.Peers {
			if peer.Interface == "eth1" && has(service.VIPs, p.IP.Destination) && has(service.Servers, peer.Guest) && s.one(2) {
				p.Destination = peer.MAC
			}
		}
	}
	return p
}

func has[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// answer is a packet from a VIP: of a guest, or from elsewhere to a guest.
func (s *Source) answer(segment policy.Segment) filter.Packet {
	service := pick(s.rand, s.blade.Services)
	vip, r := pick(s.rand, service.VIPs), pick(s.rand, service.Ports)
	to, in := s.user(vip.Is6()), segment.Link
	port, ok := s.guestPort(segment)
	if ok && s.one(3) {
		to = s.own(port, vip.Is6())
	} else if ok {
		in = port.Name
		for _, other := range s.blade.Services {
			if has(other.Servers, port.Guest) && s.one(2) {
				vip, r = pick(s.rand, other.VIPs), pick(s.rand, other.Ports)
				to = s.user(vip.Is6())
			}
		}
	}
	return s.between(segment, in, filter.IP{
		Source: vip, Destination: to, Protocol: protocolOf(r), SourcePort: r.First, DestinationPort: s.ephemeral(), Piece: s.piece(),
	})
}

func (s *Source) own(port policy.Port, v6 bool) netip.Addr {
	for _, a := range port.Addresses {
		if a.Is6() == v6 {
			return a
		}
	}
	return s.user(v6)
}

// plain is a new connection that a rule of the policy may allow, in or out.
func (s *Source) plain(segment policy.Segment) filter.Packet {
	port, ok := s.guestPort(segment)
	if !ok || len(s.blade.Rules) == 0 {
		return s.request(segment)
	}
	rule := pick(s.rand, s.blade.Rules)
	r := pick(s.rand, rule.Allow)
	v6 := s.one(2)
	ip := filter.IP{Protocol: protocolOf(r), SourcePort: s.ephemeral(), DestinationPort: r.First}
	if r.Protocol == policy.ICMP {
		ip.Protocol, ip.Type = 1, 8
		if v6 {
			ip.Protocol, ip.Type = 58, 128
		}
	}
	in := segment.Link
	ip.Source, ip.Destination = s.end(rule.From, v6), s.own(port, v6)
	if s.one(2) {
		in, ip.Source, ip.Destination = port.Name, s.own(port, v6), s.end(rule.To, v6)
	}
	return s.between(segment, in, ip)
}

func (s *Source) end(prefixes []netip.Prefix, v6 bool) netip.Addr {
	for range 8 {
		if len(prefixes) > 0 {
			if p := pick(s.rand, prefixes); p.Addr().Is6() == v6 {
				return p.Addr()
			}
		}
	}
	return s.user(v6)
}

// check is a director's health check of a real server.
func (s *Source) check(segment policy.Segment) filter.Packet {
	from, to := pick(s.rand, s.blade.Peers), pick(s.rand, s.blade.Peers)
	service := pick(s.rand, s.blade.Services)
	if len(service.Checks) == 0 || len(from.Addresses) == 0 || len(to.Addresses) == 0 {
		return s.request(segment)
	}
	r := pick(s.rand, service.Checks)
	in := segment.Link
	for _, port := range guestPorts(s.blade, segment) {
		if port.MAC == from.MAC {
			in = port.Name
		}
	}
	p := s.between(segment, in, filter.IP{
		Source: pick(s.rand, from.Addresses), Destination: pick(s.rand, to.Addresses), Protocol: protocolOf(r), SourcePort: s.ephemeral(), DestinationPort: r.First,
	})
	p.Source, p.Destination = from.MAC, to.MAC
	return p
}

// routing is OSPF, BGP, BFD or VRRP.
func (s *Source) routing(segment policy.Segment) filter.Packet {
	port, ok := s.guestPort(segment)
	if !ok || len(segment.Routers) == 0 {
		return s.arp(segment)
	}
	router := pick(s.rand, segment.Routers)
	own := s.own(port, router.Is6())
	if router.Is6() && s.one(2) {
		router, own = netip.MustParseAddr("fe80::1"), policy.LinkLocal(port.MAC)
	}
	ip := filter.IP{Source: own, Destination: router, HopLimit: 255, SourcePort: s.ephemeral()}
	in := port.Name
	if s.one(2) {
		in, ip.Source, ip.Destination = segment.Link, router, own
	}
	switch s.rand.IntN(4) {
	case 0:
		ip.Protocol = 89
	case 1:
		ip.Protocol, ip.DestinationPort = 6, 179
	case 2:
		ip.Protocol, ip.DestinationPort = 17, pick(s.rand, []uint16{3784, 4784})
	default:
		ip.Protocol = 112
	}
	if ip.Protocol == 89 && s.one(2) || ip.Protocol == 112 {
		ip.Destination = s.group(router.Is6(), ip.Protocol)
	}
	p := s.between(segment, in, ip)
	if in == segment.Link && !ip.Destination.IsMulticast() {
		p.Destination = port.MAC
	}
	return p
}

// sync is what a director tells others of its connections.
func (s *Source) sync(segment policy.Segment) filter.Packet {
	from := pick(s.rand, s.blade.Peers)
	for range 8 {
		if from.Sync == 0 {
			from = pick(s.rand, s.blade.Peers)
		}
	}
	if len(from.Addresses) == 0 || !from.Addresses[0].Is4() {
		return s.request(segment)
	}
	in := segment.Link
	for _, port := range guestPorts(s.blade, segment) {
		if port.MAC == from.MAC {
			in = port.Name
		}
	}
	p := s.between(segment, in, filter.IP{
		Source: from.Addresses[0], Destination: netip.MustParseAddr("224.0.0.81"), HopLimit: 1, Protocol: 17, SourcePort: s.ephemeral(), DestinationPort: 8848, Piece: s.piece(),
	})
	p.Source = from.MAC
	return p
}

func (s *Source) group(v6 bool, protocol uint8) netip.Addr {
	groups := map[bool][]string{false: {"224.0.0.5", "224.0.0.6"}, true: {"ff02::5", "ff02::6"}}
	if protocol == 112 {
		groups = map[bool][]string{false: {"224.0.0.18"}, true: {"ff02::12"}}
	}
	return netip.MustParseAddr(pick(s.rand, groups[v6]))
}

// dhcp is an answer of a DHCP or DHCPv6 server.
func (s *Source) dhcp(segment policy.Segment) filter.Packet {
	p := s.plain(segment)
	p.IP.Protocol, p.IP.SourcePort, p.IP.DestinationPort = 17, 67, 68
	if p.IP.Source.Is6() {
		p.IP.SourcePort, p.IP.DestinationPort = 547, 546
	}
	return p
}
