package filtertest

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// paired picks one of the directors that announce by VRRP, and by what it speaks on this blade.
func (s *Source) paired() (policy.Peer, policy.Segment, string, bool) {
	var list []policy.Peer
	for _, p := range s.blade.Peers {
		if p.VRRP != nil {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return policy.Peer{}, policy.Segment{}, "", false
	}
	p := pick(s.rand, list)
	for _, segment := range s.blade.Segments {
		if segment.Network != p.Network {
			continue
		}
		in := segment.Link
		if p.Blade == s.blade.Name {
			in = policy.PortName(p.Guest, p.Interface)
		}
		return p, segment, in, true
	}
	return policy.Peer{}, policy.Segment{}, "", false
}

// pair is what a pair of directors with floating VIPs says and hears: VRRP, ARP and neighbour discovery. Where there is no pair it is routing.
func (s *Source) pair(segment policy.Segment) filter.Packet {
	p, network, in, ok := s.paired()
	if !ok || network.Network != segment.Network {
		return s.routing(segment)
	}
	vip := pick(s.rand, pick(s.rand, s.blade.Services).VIPs)
	switch s.rand.IntN(4) {
	case 0:
		return s.advert(network, p, in, vip)
	case 1:
		return s.claim(network, p, in, vip)
	case 2:
		return s.ask(network, vip)
	}
	return s.try(network, p, vip)
}

// advert is VRRP about a VIP's virtual router.
func (s *Source) advert(segment policy.Segment, p policy.Peer, in string, vip netip.Addr) filter.Packet {
	source := policy.LinkLocal(p.MAC)
	if vip.Is4() {
		source = p.Addresses[0]
	}
	a := s.between(segment, in, filter.IP{
		Source: source, Destination: s.group(vip.Is6(), 112), HopLimit: 255, Protocol: 112, Type: 0x31, Code: uint8(p.VRRP.Router(vip)),
	})
	a.Source = p.MAC
	switch s.rand.IntN(8) {
	case 0:
		a.IP.HopLimit--
	case 1:
		a.IP.Code++
	case 2:
		a.IP.Type = 0x21
	}
	return a
}

// claim says that the VIP is at the director's MAC.
func (s *Source) claim(segment policy.Segment, p policy.Peer, in string, vip netip.Addr) filter.Packet {
	target := s.neighbourOf(segment, vip.Is6())
	if vip.Is4() {
		if s.one(2) {
			target = vip
		}
		return filter.Packet{In: in, Source: p.MAC, Destination: broadcast, EtherType: 0x0806, ARP: &filter.ARP{
			Operation: uint16(1 + s.rand.IntN(2)), SenderMAC: p.MAC, Sender: vip, Target: target,
		}}
	}
	source := vip
	if s.one(3) {
		source = policy.LinkLocal(p.MAC)
	}
	if s.one(2) {
		target = allNodes
	}
	a := s.between(segment, in, filter.IP{
		Source: source, Destination: target, HopLimit: 255, Protocol: 58, Type: 136,
		Neighbour: &filter.Neighbour{Target: vip, Options: []filter.NeighbourOption{{Type: 2, Value: p.MAC}}},
	})
	a.Source = p.MAC
	return a
}

// ask asks the VLAN for the VIP.
func (s *Source) ask(segment policy.Segment, vip netip.Addr) filter.Packet {
	source := s.neighbourOf(segment, vip.Is6())
	if vip.Is4() {
		return filter.Packet{In: segment.Link, Source: RouterMAC, Destination: broadcast, EtherType: 0x0806, ARP: &filter.ARP{
			Operation: 1, SenderMAC: RouterMAC, Sender: source, Target: vip,
		}}
	}
	group, mac := filter.SolicitedNode(vip)
	a := s.between(segment, segment.Link, s.solicitation(source, group, vip))
	a.Destination = mac
	return a
}

// try asks the VIP itself, at one of the directors.
func (s *Source) try(segment policy.Segment, p policy.Peer, vip netip.Addr) filter.Packet {
	if vip.Is4() {
		return s.ask(segment, vip)
	}
	a := s.between(segment, segment.Link, s.solicitation(s.neighbourOf(segment, true), vip, vip))
	a.Destination = p.MAC
	return a
}

func (s *Source) solicitation(source, destination, target netip.Addr) filter.IP {
	return filter.IP{
		Source: source, Destination: destination, HopLimit: 255, Protocol: 58, Type: 135,
		Neighbour: &filter.Neighbour{Target: target, Options: []filter.NeighbourOption{{Type: 1, Value: RouterMAC}}},
	}
}
