package filtertest

import (
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// probe is a director's SYN to a VIP by a real server, from the director's own address, or what answers it, with odd flags at times.
func (s *Source) probe(segment policy.Segment) filter.Packet {
	from := pick(s.rand, s.blade.Peers)
	for range 8 {
		if from.Role != policy.RoleDirector || from.Interface != "eth0" {
			from = pick(s.rand, s.blade.Peers)
		}
	}
	if len(from.Addresses) == 0 {
		return s.request(segment)
	}
	own := pick(s.rand, from.Addresses)
	if segment.Role == policy.NetworkService {
		p := s.direct(segment)
		if own.Is6() == p.IP.Destination.Is6() {
			p.IP.Source = own
		}
		return p
	}
	service := pick(s.rand, s.blade.Services)
	vip, r := pick(s.rand, service.VIPs), pick(s.rand, service.Ports)
	if vip.Is6() != own.Is6() {
		return s.answer(segment)
	}
	in := segment.Link
	if port, ok := s.guestPort(segment); ok && s.one(4) {
		in = port.Name
	}
	p := s.between(segment, in, filter.IP{
		Source: vip, Destination: own, Protocol: protocolOf(r), SourcePort: r.First, DestinationPort: s.ephemeral(), Piece: s.piece(),
		Flags: pick(s.rand, []policy.TCPFlags{synAck, synAck, policy.FlagRST, rstAck, 0, synAck | policy.FlagFIN, synAck | policy.FlagRST, policy.FlagFIN | policy.FlagRST, policy.FlagACK}),
	})
	if s.one(8) {
		p.IP.Destination = policy.LinkLocal(from.MAC)
	}
	return p
}
