package filtertest

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

var allNodes = netip.MustParseAddr("ff02::1")

// onlyIPv6 are attacks on neighbour discovery, and with headers that IPv4 does not have.
func (s *scene) onlyIPv6() {
	own, other := s.own[true], s.other[true]
	if !own.IsValid() || !other.IsValid() {
		return
	}
	s.claims(own, other)
	s.forms(own, other)
	for _, x := range []struct {
		class  string
		kind   uint8
		reason filter.Reason
	}{
		{"router advertisement", 134, filter.RouterAdvert},
		{"router solicitation", 133, filter.BadND},
		{"ICMPv6 redirect", 137, filter.BadND},
		{"listener query", 130, filter.Multicast},
		{"listener report", 131, filter.Multicast},
		{"listener report, version 2", 143, filter.Multicast},
	} {
		s.add(x.class, x.reason, s.packet(filter.IP{
			Source: policy.LinkLocal(s.mac), Destination: allNodes, HopLimit: 255, Protocol: 58, Type: x.kind,
		}))
	}
	for _, x := range []struct {
		class  string
		header uint8
	}{{"routing header", 43}, {"destination options", 60}} {
		ip := s.udp(own, stranger(true), 40000, unused)
		ip.Options, ip.Extension = true, x.header
		s.add(x.class, filter.IPv6Extension, s.packet(ip))
	}
	for _, x := range []struct {
		class    string
		protocol uint8
	}{{"IPsec ESP", 50}, {"no next header", 59}, {"GRE", 47}, {"IPv4 in IPv6", 4}} {
		s.add(x.class, filter.IPv6Extension, s.packet(filter.IP{Source: own, Destination: stranger(true), Protocol: x.protocol}))
	}
}

// advert is a neighbour advertisement to everybody.
func (s *scene) advert(source, target netip.Addr, mac policy.MAC) filter.IP {
	return filter.IP{
		Source: source, Destination: allNodes, HopLimit: 255, Protocol: 58, Type: 136,
		Neighbour: &filter.Neighbour{Target: target, Options: []filter.NeighbourOption{{Type: 2, Value: mac}}},
	}
}

// claims say that an address is the attacker's.
func (s *scene) claims(own, other netip.Addr) {
	s.add("advertisement of a neighbour's address", filter.SpoofedND, s.packet(s.advert(own, other, s.mac)))
	s.add("advertisement from a neighbour's address", filter.SpoofedND, s.packet(s.advert(other, other, s.mac)))
	s.add("advertisement of a neighbour's MAC", filter.SpoofedND, s.packet(s.advert(own, own, s.victim)))
	probe := s.advert(netip.IPv6Unspecified(), other, s.mac)
	probe.Type, probe.Neighbour.Options = 135, nil
	s.add("duplicate address probe for a neighbour's", filter.SpoofedND, s.packet(probe))
	for _, vip := range s.vipsOf(true) {
		if s.pair == nil {
			s.add("advertisement of a VIP", filter.VIPND, s.packet(s.advert(own, vip, s.mac)))
		}
		ask := s.advert(own, vip, s.mac)
		ask.Type, ask.Neighbour.Options[0].Type = 135, 1
		s.add("solicitation for a VIP", filter.VIPND, s.packet(ask))
	}
	s.add("advertisement of a stranger's address", filter.BadND, s.packet(s.advert(own, stranger(true), s.mac)))
}

// forms are neighbour messages as no kernel sends them.
func (s *scene) forms(own, other netip.Addr) {
	ask := func() filter.IP {
		ip := s.advert(own, other, s.mac)
		ip.Type, ip.Neighbour.Options[0].Type = 135, 1
		return ip
	}
	far, odd, two, behind, piece := ask(), ask(), ask(), ask(), ask()
	far.HopLimit = 64
	s.add("neighbour message from beyond a router", filter.BadND, s.packet(far))
	odd.Code = 1
	s.add("neighbour message with a code", filter.BadND, s.packet(odd))
	two.Neighbour.Options = append(two.Neighbour.Options, filter.NeighbourOption{Type: 1, Value: s.victim})
	s.add("neighbour message with a second option", filter.BadND, s.packet(two))
	behind.Options = true
	s.add("neighbour message behind a hop-by-hop header", filter.IPv6Extension, s.packet(behind))
	piece.Piece = filter.FirstFragment
	s.add("neighbour message in fragments", filter.BadND, s.packet(piece))
}
