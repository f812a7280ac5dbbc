package filtertest

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// arp is a request or reply, of a guest or from the link.
func (s *Source) arp(segment policy.Segment) filter.Packet {
	in := s.anyPort(segment)
	a := &filter.ARP{Operation: uint16(1 + s.rand.IntN(2)), SenderMAC: RouterMAC, Sender: s.neighbourOf(segment, false), Target: s.neighbourOf(segment, false)}
	p := filter.Packet{In: in, Source: RouterMAC, Destination: broadcast, EtherType: 0x0806, ARP: a}
	for _, port := range guestPorts(s.blade, segment) {
		if port.Name == in {
			p.Source, a.SenderMAC, a.Sender = port.MAC, port.MAC, s.own(port, false)
			if s.one(4) {
				a.Target = a.Sender
			}
			if s.one(8) {
				a.Sender = netip.IPv4Unspecified()
			}
		}
	}
	if vip := pick(s.rand, pick(s.rand, s.blade.Services).VIPs); vip.Is4() && s.one(8) {
		a.Target = vip
	}
	if a.Operation == 2 && s.one(2) {
		p.Destination = pick(s.rand, s.pool.macs)
	}
	return p
}

func (s *Source) neighbourOf(segment policy.Segment, v6 bool) netip.Addr {
	var list []netip.Addr
	for _, r := range segment.Routers {
		if r.Is6() == v6 {
			list = append(list, r)
		}
	}
	for _, peer := range s.blade.Peers {
		for _, a := range peer.Addresses {
			if peer.Network == segment.Network && a.Is6() == v6 {
				list = append(list, a)
			}
		}
	}
	if v6 && s.one(3) {
		list = append(list, netip.MustParseAddr("fe80::1"))
	}
	if len(list) == 0 {
		return s.user(v6)
	}
	return pick(s.rand, list)
}

// neighbour is a neighbour solicitation or advertisement.
func (s *Source) neighbour(segment policy.Segment) filter.Packet {
	in := s.anyPort(segment)
	n := &filter.Neighbour{Target: s.neighbourOf(segment, true)}
	ip := filter.IP{Source: s.neighbourOf(segment, true), Protocol: 58, Type: uint8(135 + s.rand.IntN(2)), HopLimit: 255, Neighbour: n}
	source := RouterMAC
	for _, port := range guestPorts(s.blade, segment) {
		if port.Name != in {
			continue
		}
		source, ip.Source = port.MAC, s.own(port, true)
		if s.one(3) {
			ip.Source = policy.LinkLocal(port.MAC)
		}
		if ip.Type == 136 {
			n.Target = ip.Source
		}
		if ip.Type == 135 && s.one(3) {
			n.Target, ip.Source = ip.Source, netip.IPv6Unspecified()
		}
	}
	switch {
	case ip.Source.IsUnspecified() && s.one(2):
		n.Options = []filter.NeighbourOption{{Type: 14, Value: policy.MAC{1, 2, 3, 4, 5, 6}}}
	case !ip.Source.IsUnspecified() && !s.one(3):
		n.Options = []filter.NeighbourOption{{Type: ip.Type - 134, Value: source}}
	}
	if vip := pick(s.rand, pick(s.rand, s.blade.Services).VIPs); vip.Is6() && s.one(8) {
		n.Target = vip
	}
	group, mac := filter.SolicitedNode(n.Target)
	ip.Destination = group
	p := s.between(segment, in, ip)
	p.Source, p.Destination = source, mac
	return p
}

// oddICMP is any ICMP message: router advertisements, listener reports, redirects, echoes.
func (s *Source) oddICMP(segment policy.Segment) filter.Packet {
	p := s.plain(segment)
	ip := p.IP
	ip.Protocol, ip.Type = 1, pick(s.rand, []uint8{0, 3, 5, 8, 9, 10, 11, 12, 13})
	if ip.Source.Is6() {
		ip.Protocol, ip.Type = 58, pick(s.rand, []uint8{1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143})
		ip.HopLimit = pick(s.rand, []uint8{64, 255, 255})
		if s.one(2) {
			ip.Source = netip.MustParseAddr("fe80::1")
			ip.Destination = netip.MustParseAddr("ff02::1")
			p.Destination = policy.MAC{0x33, 0x33, 0, 0, 0, 1}
		}
	}
	return p
}

// icmpError quotes a packet of a service, or of something else.
func (s *Source) icmpError(segment policy.Segment) filter.Packet {
	p := s.request(segment)
	if s.one(3) {
		p = s.direct(segment)
	}
	ip := p.IP
	quoted := &filter.Quoted{
		Source: ip.Destination, Destination: ip.Source, Protocol: ip.Protocol, SourcePort: ip.DestinationPort, DestinationPort: ip.SourcePort,
		Options: s.one(10), Fragment: s.one(5),
	}
	if s.one(5) {
		quoted.SourcePort = pick(s.rand, s.pool.ports)
	}
	if s.one(5) {
		quoted.Source = s.any(ip.Source.Is6())
	}
	ip.Quoted, ip.Piece = quoted, filter.Whole
	ip.Protocol, ip.Type = 1, pick(s.rand, []uint8{3, 4, 11, 12})
	if ip.Source.Is6() {
		ip.Protocol, ip.Type = 58, pick(s.rand, []uint8{1, 2, 3, 4, 100})
	}
	return p
}

func (s *Source) any(v6 bool) netip.Addr {
	if v6 {
		return pick(s.rand, s.pool.v6)
	}
	return pick(s.rand, s.pool.v4)
}

// impostor is what somebody on the VLAN sends with the MAC or an address of a guest of this blade.
func (s *Source) impostor(segment policy.Segment) filter.Packet {
	port, ok := s.guestPort(segment)
	if !ok {
		return s.oddFrame(segment)
	}
	draws := []func(policy.Segment) filter.Packet{s.request, s.plain, s.arp, s.neighbour}
	p := pick(s.rand, draws)(segment)
	p.In = segment.Link
	if s.one(3) {
		p.Source = port.MAC
	}
	switch {
	case p.ARP != nil:
		p.ARP.Sender = s.own(port, false)
	case p.IP.Neighbour != nil && s.one(2):
		p.IP.Neighbour.Target = s.own(port, true)
		if s.one(3) {
			p.IP.Source = netip.IPv6Unspecified()
		}
	default:
		p.IP.Source = s.own(port, p.IP.Source.Is6())
	}
	return p
}

// oddFrame is something else than IP and ARP, or to the addresses of link protocols.
func (s *Source) oddFrame(segment policy.Segment) filter.Packet {
	p := s.arp(segment)
	if s.one(2) {
		p.Destination = policy.MAC{0x01, 0x80, 0xc2, 0, 0, 0}
		return p
	}
	// LLDP, loopback, RARP, AVB, the tags of IEEE 802.1Q and of providers, and a length, which begins a frame of IEEE 802.2.
	p.ARP, p.EtherType = nil, pick(s.rand, []uint16{0x88cc, 0x9000, 0x8035, 0x22f0, 0x8100, 0x88a8, 46})
	return p
}

// spoil makes one field something else.
func (s *Source) spoil(p *filter.Packet, segment policy.Segment) {
	switch s.rand.IntN(12) {
	case 0:
		p.Source = pick(s.rand, s.pool.macs)
	case 1:
		p.Destination = pick(s.rand, s.pool.macs)
	case 2:
		p.Tagged = s.one(2)
	case 3:
		p.In = s.anyPort(segment)
	default:
		if p.ARP != nil {
			s.spoilARP(p.ARP)
		}
		if p.IP != nil {
			s.spoilIP(p.IP)
		}
	}
}

func (s *Source) spoilARP(a *filter.ARP) {
	switch s.rand.IntN(4) {
	case 0:
		a.Sender = pick(s.rand, s.pool.v4)
	case 1:
		a.Target = pick(s.rand, s.pool.v4)
	case 2:
		a.SenderMAC = pick(s.rand, s.pool.macs)
	default:
		a.Operation = uint16(s.rand.IntN(10))
	}
}

func (s *Source) spoilIP(ip *filter.IP) {
	v6 := ip.Source.Is6()
	switch s.rand.IntN(12) {
	case 0, 1:
		ip.Source = s.any(v6)
	case 2, 3:
		ip.Destination = s.any(v6)
	case 4:
		ip.DestinationPort = pick(s.rand, s.pool.ports)
	case 5:
		ip.SourcePort = pick(s.rand, s.pool.ports)
	case 6:
		ip.Options, ip.Extension = true, pick(s.rand, []uint8{0, 43, 60}) // hop-by-hop, routing, destination
	case 7:
		ip.Protocol = pick(s.rand, []uint8{6, 17, 1, 58, 89, 112, 132, 47})
	case 8:
		ip.Flags = policy.TCPFlags(s.rand.IntN(64))
	case 9:
		ip.Piece = pick(s.rand, []filter.Piece{filter.Whole, filter.FirstFragment, filter.LaterFragment})
	case 10:
		ip.Code, ip.HopLimit = uint8(s.rand.IntN(2)), pick(s.rand, []uint8{1, 64, 255})
	default:
		if n := ip.Neighbour; n != nil {
			s.spoilNeighbour(n)
		}
	}
}

func (s *Source) spoilNeighbour(n *filter.Neighbour) {
	if s.one(2) {
		n.Target = pick(s.rand, s.pool.v6)
		return
	}
	n.Options = append(n.Options, filter.NeighbourOption{Type: uint8(1 + s.rand.IntN(2)), Value: pick(s.rand, s.pool.macs)})
}
