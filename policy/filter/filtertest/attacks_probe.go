package filtertest

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// Shapes of TCP segments.
const (
	synAck = policy.FlagSYN | policy.FlagACK
	rstAck = policy.FlagRST | policy.FlagACK
)

// pose are frames from the VLAN that pose as the answer to a director's probe of a VIP, which only a SYN-ACK or RST from a service's port to
// the director's own address on its uplink is.
func (s *scene) pose(v6 bool, p policy.Port) {
	own := s.own[v6]
	vip, port := s.tcpService(v6)
	if !vip.IsValid() || !own.IsValid() || s.mayAsk(own, vip) {
		return
	}
	to := func(ip filter.IP) filter.Packet {
		out := s.packet(ip)
		out.Destination = p.MAC
		return out
	}
	if p.Role != policy.RoleDirector || s.segment.Role != policy.NetworkUplink {
		s.add("an answer from a VIP to a guest that probes none", filter.NoRule, to(s.tcp(vip, own, port, 40000, synAck)))
		return
	}
	for _, x := range []struct {
		class  string
		reason filter.Reason
		flags  policy.TCPFlags
	}{
		{"a connection from a VIP to a director", filter.VIPSyn, policy.FlagSYN},
		{"data from a VIP to a director", filter.NoRule, policy.FlagACK | policy.FlagPSH},
		{"the end of a connection from a VIP to a director", filter.NoRule, policy.FlagFIN | policy.FlagACK},
		{"a SYN-ACK with FIN to a director", filter.NoRule, synAck | policy.FlagFIN},
		{"a SYN-ACK with RST to a director", filter.NoRule, synAck | policy.FlagRST},
		{"a reset that acknowledges nothing to a director", filter.NoRule, policy.FlagRST},
		{"no flags from a VIP to a director", filter.NoRule, 0},
	} {
		s.add(x.class, x.reason, to(s.tcp(vip, own, port, 40000, x.flags)))
	}
	s.add("a SYN-ACK from a VIP's port that is no service", filter.NoRule, to(s.tcp(vip, own, unused, 40000, synAck)))
	s.add("a reset from a VIP's port that is no service", filter.NoRule, to(s.tcp(vip, own, unused, 40000, rstAck)))
	s.add("a SYN-ACK from a VIP to another's address at a director", filter.Misdirected, to(s.tcp(vip, stranger(v6), port, 40000, synAck)))
	s.add("a SYN-ACK from a VIP to a director's address by another MAC", filter.Misdirected, s.packet(s.tcp(vip, own, port, 40000, synAck)))
	s.add("a datagram from a VIP to a director", filter.NoRule, to(s.udp(vip, own, unused, 40000)))
	piece := s.tcp(vip, own, port, 40000, synAck)
	piece.Piece = filter.FirstFragment
	s.add("a SYN-ACK in pieces to a director", filter.NoRule, to(piece))
	if local := policy.LinkLocal(p.MAC); v6 && !s.mayAsk(local, vip) {
		s.add("a SYN-ACK from a VIP to a director's link-local address", filter.NoRule, to(s.tcp(vip, local, port, 40000, synAck)))
	}
}

// tcpService is the first VIP of a family with a TCP port.
func (s *scene) tcpService(v6 bool) (netip.Addr, uint16) {
	for _, service := range s.blade.Services {
		for _, vip := range service.VIPs {
			for _, r := range service.Ports {
				if vip.Is6() == v6 && r.Protocol == policy.TCP {
					return vip, r.First
				}
			}
		}
	}
	return netip.Addr{}, 0
}

// mayAsk says whether a rule of the policy may let the address ask the VIP: what answers it is no attack then.
func (s *scene) mayAsk(a, vip netip.Addr) bool {
	within := func(prefixes []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return slices.ContainsFunc(s.blade.Rules, func(r policy.Rule) bool {
		from := within(r.From, a) || r.FromAny && !slices.Contains(s.blade.GuestAddresses, a)
		return from && (r.ToAny || within(r.To, vip))
	})
}
