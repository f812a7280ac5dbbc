package filtertest

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// unused is a port that no policy of the tests opens.
const unused = 4

func stranger(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("2001:db8:c0::7")
	}
	return netip.MustParseAddr("198.18.0.7")
}

// packet is an IP packet to somebody else than a guest, by the router.
func (s *scene) packet(ip filter.IP) filter.Packet {
	p := filter.Packet{Source: s.mac, Destination: RouterMAC, EtherType: 0x0800, IP: &ip}
	if ip.Source.Is6() {
		p.EtherType = 0x86dd
	}
	if ip.HopLimit == 0 {
		ip.HopLimit = 64
	}
	if ip.Destination.IsMulticast() {
		b := ip.Destination.AsSlice()
		p.Destination = policy.MAC{0x33, 0x33, b[len(b)-4], b[len(b)-3], b[len(b)-2], b[len(b)-1]}
		if ip.Destination.Is4() {
			p.Destination = policy.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
		}
	}
	return p
}

func (s *scene) udp(from, to netip.Addr, source, destination uint16) filter.IP {
	return filter.IP{Source: from, Destination: to, Protocol: 17, SourcePort: source, DestinationPort: destination}
}

func (s *scene) tcp(from, to netip.Addr, source, destination uint16, flags policy.TCPFlags) filter.IP {
	return filter.IP{Source: from, Destination: to, Protocol: 6, SourcePort: source, DestinationPort: destination, Flags: flags}
}

// addresses are attacks with a source that is not the port's, and connections that nobody allows.
func (s *scene) addresses(v6 bool) {
	own, other, user := s.own[v6], s.other[v6], stranger(v6)
	unspecified := netip.IPv4Unspecified()
	if v6 {
		unspecified = netip.IPv6Unspecified()
	}
	for _, x := range []struct {
		class string
		from  netip.Addr
	}{{"a neighbour's address as source", other}, {"a user's address as source", user}, {"no address as source", unspecified}} {
		s.add(x.class, filter.SpoofedIP, s.packet(s.udp(x.from, user, 40000, unused)))
	}
	s.add("connection that no rule allows", filter.NoRule, s.packet(s.tcp(own, user, 40000, unused, policy.FlagSYN)))
	s.add("datagram that no rule allows", filter.NoRule, s.packet(s.udp(own, user, 40000, unused)))
	s.add("reset of no connection", filter.BadState, s.packet(s.tcp(own, user, 40000, unused, policy.FlagRST)))
	server := s.udp(own, other, 67, 68)
	if v6 {
		server = s.udp(own, other, 547, 546)
	}
	s.add("DHCP server", filter.DHCPServer, s.packet(server))
	options := s.udp(own, user, 40000, unused)
	options.Options = true
	if v6 {
		s.add("hop-by-hop header", filter.IPv6Extension, s.packet(options))
	} else {
		s.add("IPv4 options", filter.IPOptions, s.packet(options))
	}
	group, all := "224.0.0.251", "224.0.0.18"
	if v6 {
		group, all = "ff02::fb", "ff02::12"
	}
	s.add("multicast that no protocol needs", filter.Multicast, s.packet(s.udp(own, netip.MustParseAddr(group), 5353, 5353)))
	unicast := s.packet(s.udp(own, netip.MustParseAddr(group), 5353, 5353))
	unicast.Destination = RouterMAC
	s.add("multicast address in a unicast frame", filter.Multicast, unicast)
	vrrp := filter.Multicast
	if v6 && s.pair == nil {
		vrrp = filter.IPv6Extension // no header that a guest may have
	}
	s.add("VRRP", vrrp, s.packet(filter.IP{Source: own, Destination: netip.MustParseAddr(all), HopLimit: 255, Protocol: 112}))
	if !v6 && !s.syncs() {
		s.add("connections of IPVS for others", filter.Multicast, s.packet(s.udp(own, netip.MustParseAddr("224.0.0.81"), 40000, 8848)))
	}
	if !s.director {
		hello := netip.MustParseAddr("224.0.0.5")
		if v6 {
			hello = netip.MustParseAddr("ff02::5")
		}
		s.add("OSPF hello", filter.Multicast, s.packet(filter.IP{Source: own, Destination: hello, HopLimit: 1, Protocol: 89}))
	}
}

// syncs says whether others hear of this port's connections.
func (s *scene) syncs() bool {
	return slices.ContainsFunc(s.blade.Peers, func(p policy.Peer) bool { return p.MAC == s.mac && p.Sync != 0 })
}

// vips are attacks with a VIP at one end.
func (s *scene) vips(v6 bool, p policy.Port) {
	user := stranger(v6)
	for _, vip := range s.vipsOf(v6) {
		s.add("connection to a VIP that no rule allows", filter.NoRule, s.packet(s.tcp(s.own[v6], vip, 40000, unused, policy.FlagSYN)))
	}
	if s.role == policy.RoleRealServer && s.segment.Role == policy.NetworkReturn {
		s.answers(v6, user)
		return
	}
	for _, vip := range s.vipsOf(v6) {
		s.add("a VIP as source", filter.SpoofedVIP, s.packet(s.tcp(vip, user, unused, 40000, policy.FlagACK)))
		if s.role == policy.RoleDirector && s.segment.Role == policy.NetworkUplink {
			s.add("a user's request by the wrong port", filter.SpoofedIP, s.packet(s.tcp(user, vip, 40000, unused, policy.FlagSYN)))
		}
	}
	if s.role == policy.RoleDirector && s.segment.Role == policy.NetworkService {
		s.requests(v6, user)
	}
}

// answers are what a real server may try on the port by which it answers.
func (s *scene) answers(v6 bool, user netip.Addr) {
	for _, service := range s.blade.Services {
		for _, vip := range service.VIPs {
			if vip.Is6() != v6 {
				continue
			}
			if !s.serves(vip) {
				s.add("a VIP of others as source", filter.SpoofedVIP, s.packet(s.tcp(vip, user, 443, 40000, policy.FlagACK)))
				continue
			}
			if !has(service.Servers, s.guest) {
				continue
			}
			s.add("a VIP's port that is no service", filter.VIPSource, s.packet(s.tcp(vip, user, unused, 40000, policy.FlagACK)))
			s.add("connection from a VIP", filter.VIPSyn, s.packet(s.tcp(vip, user, unused, 40000, policy.FlagSYN)))
			s.add("ping from a VIP", filter.VIPICMP, s.packet(filter.IP{Source: vip, Destination: user, Protocol: icmp(v6), Type: echo(v6)}))
			piece := s.tcp(vip, user, unused, 40000, policy.FlagACK)
			piece.Piece = filter.LaterFragment
			s.add("fragment of TCP from a VIP", filter.VIPFragment, s.packet(piece))
			if service.Ports[0].Protocol == policy.TCP {
				first := service.Ports[0].First
				s.add("connection from a VIP's own port", filter.VIPSyn, s.packet(s.tcp(vip, user, first, 40000, policy.FlagSYN)))
				all := s.packet(s.tcp(vip, user, first, 40000, policy.FlagACK))
				all.Destination = broadcast
				s.add("answer to everybody's MAC", filter.Multicast, all)
			}
		}
	}
}

func (s *scene) serves(vip netip.Addr) bool {
	for _, service := range s.blade.Services {
		if has(service.VIPs, vip) && has(service.Servers, s.guest) {
			return true
		}
	}
	return false
}

// requests are what a director may try on the port by which it hands on users' requests.
func (s *scene) requests(v6 bool, user netip.Addr) {
	for _, service := range s.blade.Services {
		for _, vip := range service.VIPs {
			if vip.Is6() != v6 {
				continue
			}
			s.add("a user's request to no real server", filter.SpoofedIP, s.packet(s.tcp(user, vip, 40000, unused, policy.FlagSYN)))
			for _, peer := range s.blade.Peers {
				if peer.Interface != "eth1" || !has(service.Servers, peer.Guest) {
					continue
				}
				to := func(ip filter.IP) filter.Packet {
					p := s.packet(ip)
					p.Destination = peer.MAC
					return p
				}
				piece := s.tcp(user, vip, 40000, unused, policy.FlagACK)
				piece.Piece = filter.LaterFragment
				s.add("a request for a port that is no service", filter.VIPPort, to(s.tcp(user, vip, 40000, unused, policy.FlagSYN)))
				s.add("a fragment of TCP to a VIP", filter.VIPFragment, to(piece))
				s.add("a ping to a VIP", filter.VIPICMP, to(filter.IP{Source: user, Destination: vip, Protocol: icmp(v6), Type: echo(v6)}))
				s.add("a user's packet to a real server itself", filter.SpoofedIP, to(s.tcp(user, stranger(v6), 40000, unused, policy.FlagSYN)))
				break
			}
		}
	}
}

func icmp(v6 bool) uint8 {
	if v6 {
		return 58
	}
	return 1
}

func echo(v6 bool) uint8 {
	if v6 {
		return 128
	}
	return 8
}

func (s *scene) onlyIPv4() {
	own, other := s.own[false], s.other[false]
	if !own.IsValid() || !other.IsValid() {
		return
	}
	for _, x := range []struct {
		class string
		kind  uint8
	}{{"ICMP redirect", 5}, {"ICMP router advertisement", 9}, {"ICMP router solicitation", 10}} {
		s.add(x.class, filter.RouterAdvert, s.packet(filter.IP{Source: own, Destination: other, Protocol: 1, Type: x.kind}))
	}
	all := s.packet(s.udp(own, netip.MustParseAddr("255.255.255.255"), 137, 137))
	all.Destination = broadcast
	s.add("broadcast", filter.Multicast, all)
	s.add("IGMP", filter.Multicast, s.packet(filter.IP{Source: own, Destination: netip.MustParseAddr("224.0.0.22"), HopLimit: 1, Protocol: 2}))
}
