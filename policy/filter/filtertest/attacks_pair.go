package filtertest

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// ofPair are what a director that may say that a VIP is at its MAC may try beyond that.
func (s *scene) ofPair() {
	if s.pair == nil {
		return
	}
	for _, vip := range s.vipsOf(false) {
		elsewhere := s.announce(vip, vip)
		elsewhere.ARP.SenderMAC = s.victim
		s.add("a floating VIP at another MAC", filter.VIPARP, elsewhere)
		s.add("a floating VIP to a stranger", filter.VIPARP, s.announce(vip, netip.MustParseAddr("198.18.0.7")))
		s.adverts(vip, s.own[false], filter.SpoofedIP)
		s.add("a floating VIP as source", filter.SpoofedVIP, s.packet(s.udp(vip, stranger(false), 40000, unused)))
	}
	for _, vip := range s.vipsOf(true) {
		s.add("advertisement of a floating VIP at another MAC", filter.VIPND, s.packet(s.advert(s.own[true], vip, s.victim)))
		bare, far := s.advert(vip, vip, s.mac), s.advert(vip, vip, s.mac)
		bare.Neighbour.Options = nil
		s.add("advertisement of a floating VIP without a MAC", filter.VIPND, s.packet(bare))
		far.HopLimit = 254
		s.add("advertisement of a floating VIP from beyond a router", filter.BadND, s.packet(far))
		s.add("advertisement of a floating VIP from a neighbour's address", filter.SpoofedIP, s.packet(s.advert(s.other[true], vip, s.mac)))
		s.add("advertisement of a neighbour's address from a floating VIP", filter.SpoofedND, s.packet(s.advert(vip, s.other[true], s.mac)))
		s.adverts(vip, policy.LinkLocal(s.mac), filter.IPv6Extension)
		s.add("a floating VIP as source", filter.SpoofedVIP, s.packet(s.udp(vip, stranger(true), 40000, unused)))
	}
}

// vrrp is an advertisement for a VIP's virtual router.
func (s *scene) vrrp(source, vip netip.Addr, v policy.VRRP) filter.IP {
	group := netip.MustParseAddr("224.0.0.18")
	if vip.Is6() {
		group = netip.MustParseAddr("ff02::12")
	}
	return filter.IP{Source: source, Destination: group, HopLimit: 255, Protocol: 112, Type: 0x31, Code: uint8(v.Router(vip))}
}

// adverts are VRRP that is not quite that of the pair.
func (s *scene) adverts(vip, own netip.Addr, spoofed filter.Reason) {
	right := func() filter.IP { return s.vrrp(own, vip, *s.pair.VRRP) }
	far, other, old, unicast := right(), right(), right(), right()
	far.HopLimit = 254
	s.add("VRRP from beyond a router", filter.Multicast, s.packet(far))
	other.Code = 255
	s.add("VRRP of a virtual router that is no VIP's", filter.Multicast, s.packet(other))
	old.Type = 0x21
	s.add("VRRP of another version", filter.Multicast, s.packet(old))
	unicast.Destination = s.other[vip.Is6()]
	s.add("VRRP to one receiver", filter.NoRule, s.packet(unicast))
	s.add("VRRP from a neighbour's address", spoofed, s.packet(s.vrrp(s.other[vip.Is6()], vip, *s.pair.VRRP)))
}

// intrudeOnPair are frames from the VLANs about floating VIPs that come from nobody of the pair, or where the VIPs are not.
func (s *scene) intrudeOnPair(p policy.Port) {
	pairs := func(match func(policy.Peer) bool) bool {
		return slices.ContainsFunc(s.blade.Peers, func(peer policy.Peer) bool { return peer.Network == p.Network && match(peer) })
	}
	here := pairs(func(peer policy.Peer) bool { return peer.VRRP != nil })
	if here && s.pair == nil {
		return // another director beside the pair
	}
	own4 := s.other[false]
	for _, vip := range s.vipsOf(false) {
		ask := s.announce(own4, vip)
		ask.ARP.Operation = 1
		if s.pair == nil {
			s.add("ARP request for a VIP where it is not", filter.VIPARP, ask)
			continue
		}
		taken := s.announce(vip, vip)
		taken.ARP.SenderMAC = p.MAC
		s.add("a floating VIP at a director's MAC from another", filter.VIPARP, taken)
		probe := s.announce(netip.IPv4Unspecified(), vip)
		probe.ARP.Operation = 1
		s.add("ARP probe for a floating VIP", filter.VIPARP, probe)
		ask.ARP.Sender = s.own[false]
		s.add("ARP request for a floating VIP from a guest's address", filter.VIPARP, ask)
		s.add("ARP reply to a floating VIP", filter.VIPARP, s.announce(own4, vip))
		s.add("VRRP from no director", filter.Multicast, s.packet(s.vrrp(netip.MustParseAddr("192.0.2.61"), vip, *s.pair.VRRP)))
	}
	for _, vip := range s.vipsOf(true) {
		ask := s.advert(router, vip, s.mac)
		ask.Type, ask.Neighbour.Options[0].Type = 135, 1
		if s.pair == nil {
			s.add("solicitation for a VIP where it is not", filter.VIPND, s.packet(ask))
			continue
		}
		probe := s.advert(netip.IPv6Unspecified(), vip, s.mac)
		probe.Type, probe.Neighbour.Options = 135, nil
		s.add("duplicate address probe for a floating VIP", filter.VIPND, s.packet(probe))
		tries := func(ip filter.IP) filter.Packet {
			ip.Destination = vip
			packet := s.packet(ip)
			packet.Destination = p.MAC
			return packet
		}
		far := ask
		far.HopLimit = 254
		s.add("a try of a floating VIP from beyond a router", filter.BadND, tries(far))
		spoofed := ask
		spoofed.Source = s.own[true]
		s.add("a try of a floating VIP from a guest's address", filter.SpoofedND, tries(spoofed))
		s.add("advertisement to a floating VIP", filter.VIPICMP, tries(s.advert(router, router, s.mac)))
		if !pairs(func(peer policy.Peer) bool { return peer.VRRP == nil }) { // others may hear of routers, whose link-local addresses no policy knows
			s.add("VRRP from no director", filter.Multicast, s.packet(s.vrrp(router, vip, *s.pair.VRRP)))
		}
	}
}
