package filter

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// Judge says what must happen to a packet on a blade, and why. It reads the policy itself and shares nothing with Compile but
// names: where it and the kernel disagree, one of them is wrong. Rates and numbers of connections are not judged: what is within its
// limit is meant.
func Judge(b policy.Blade, p Packet) Verdict {
	j := judgement{b: b, p: p}
	j.in, j.out = j.end(p.In), j.end(p.Out)
	if j.in.unknown() {
		v := drop(UnnamedPort, "no port of that name")
		v.Guard = true
		return v
	}
	if v, guilty := j.guard(); guilty {
		v.Guard = true
		return v
	}
	return j.hear()
}

func drop(r Reason, rule string) Verdict { return Verdict{Reason: r, Rule: rule} }

func allow(rule string, pos policy.Pos) Verdict { return Verdict{Accept: true, Rule: rule, Pos: pos} }

// judgement is one packet before one blade's policy.
type judgement struct {
	b       policy.Blade
	p       Packet
	in, out end
}

// end is a port of a bridge: a guest's, or the VLAN link, or neither.
type end struct {
	port    *policy.Port
	segment *policy.Segment
	place   place
}

func (e end) unknown() bool { return e.segment == nil }
func (e end) guest() bool   { return e.port != nil }
func (e end) link() bool    { return e.segment != nil && e.port == nil }

func (j judgement) end(name string) end {
	segment := func(match func(policy.Segment) bool) *policy.Segment {
		if i := slices.IndexFunc(j.b.Segments, match); i >= 0 {
			return &j.b.Segments[i]
		}
		return nil
	}
	if s := segment(func(s policy.Segment) bool { return s.Link == name }); s != nil {
		return end{segment: s}
	}
	for _, g := range j.b.Guests {
		for _, p := range g.Ports {
			if p.Name == name {
				s := segment(func(s policy.Segment) bool { return s.Network == p.Network })
				return end{port: &p, segment: s, place: placeOf(p.Role, s.Role)}
			}
		}
	}
	return end{}
}

// owns says whether an address is the end's own, the link-local one included.
func (e end) owns(a netip.Addr) bool {
	return e.guest() && (slices.Contains(e.port.Addresses, a) || a == policy.LinkLocal(e.port.MAC))
}

// inNetwork says whether an address belongs to the end's network.
func (e end) inNetwork(a netip.Addr) bool {
	if linkLocal.Contains(a) {
		return true
	}
	return slices.ContainsFunc(e.segment.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (j judgement) isVIP(a netip.Addr) bool {
	return slices.ContainsFunc(j.b.Services, func(s policy.Service) bool { return slices.Contains(s.VIPs, a) })
}

func (j judgement) isGuest(a netip.Addr) bool { return slices.Contains(j.b.GuestAddresses, a) }

// guard judges who speaks. A packet that it finds guilty is dropped whatever else the policy says.
func (j judgement) guard() (Verdict, bool) {
	p := j.p
	switch {
	case p.Tagged || p.EtherType == typeVLAN || p.EtherType == typeQinQ:
		return drop(VLANTag, "a frame inside a VLAN carries no tag"), true
	case j.vipSpeaker():
		return Verdict{}, false
	case isLinkProtocol(p.Destination):
		return drop(LinkProtocol, "spanning tree and LLDP end at the bridge"), true
	case j.in.guest() && p.Source != j.in.port.MAC:
		return drop(SpoofedMAC, "a port speaks with its own MAC"), true
	case j.in.link() && j.localMAC(p.Source):
		return drop(SpoofedMAC, "a guest of this blade speaks by its own port"), true
	case p.EtherType == typeARP && p.ARP != nil:
		return j.guardARP()
	case p.IP != nil && p.EtherType == ipv4.etherType:
		return j.guardIPv4()
	case p.IP != nil && p.EtherType == ipv6.etherType:
		return j.guardIPv6()
	}
	return drop(UnknownType, "IPv4, IPv6 and ARP only"), true
}

func isLinkProtocol(m policy.MAC) bool {
	return slices.Equal(m[:5], linkProtocols[:5]) && m[5] < 16
}

// vipSpeaker says whether the sender may send this VIP packet at all: a real server from its VIP, a director to a real server of
// the VIP, or the VLAN to a VIP.
func (j judgement) vipSpeaker() bool {
	ip := j.p.IP
	if ip == nil || ip.Source.Is4() && ip.Options {
		return false
	}
	if j.in.link() {
		return j.in.segment.Role != policy.NetworkReturn && j.isVIP(ip.Destination)
	}
	if j.p.Source != j.in.port.MAC {
		return false
	}
	return j.in.place == serverReturn && j.serves(j.in, ip.Source) || j.directRoute()
}

// serves says whether the guest at an end is a real server of any service of a VIP.
func (j judgement) serves(e end, vip netip.Addr) bool {
	return slices.ContainsFunc(j.b.Services, func(s policy.Service) bool {
		return slices.Contains(s.VIPs, vip) && slices.Contains(s.Servers, e.port.Guest)
	})
}

// directRoute says whether a director of this blade sends the packet to a real server of its VIP.
func (j judgement) directRoute() bool {
	if j.in.place != directorService || j.p.Source != j.in.port.MAC {
		return false
	}
	for _, s := range j.b.Services {
		if !slices.Contains(s.VIPs, j.p.IP.Destination) {
			continue
		}
		for _, peer := range j.b.Peers {
			if peer.Interface == "eth1" && peer.MAC == j.p.Destination && slices.Contains(s.Servers, peer.Guest) {
				return true
			}
		}
	}
	return false
}

// fromDirector says whether the frame has the MAC of a director on the service network, and comes from where that director is.
func (j judgement) fromDirector() bool {
	return slices.ContainsFunc(j.b.Peers, func(p policy.Peer) bool {
		if p.Role != policy.RoleDirector || p.Interface != "eth1" || p.MAC != j.p.Source {
			return false
		}
		if p.Blade == j.b.Name {
			return j.in.guest() && j.in.port.Guest == p.Guest && j.in.port.Interface == p.Interface
		}
		return j.in.link() && j.in.segment.Network == p.Network
	})
}

// localMAC says whether a MAC is of a guest of this blade.
func (j judgement) localMAC(m policy.MAC) bool {
	return slices.ContainsFunc(j.b.Guests, func(g policy.Guest) bool {
		return slices.ContainsFunc(g.Ports, func(p policy.Port) bool { return p.MAC == m })
	})
}

// local says whether an address is that of a guest of this blade on the link's network.
func (j judgement) local(a netip.Addr) bool {
	return j.in.link() && slices.ContainsFunc(j.b.Guests, func(g policy.Guest) bool {
		return slices.ContainsFunc(g.Ports, func(p policy.Port) bool {
			return p.Network == j.in.segment.Network && end{port: &p}.owns(a)
		})
	})
}

func (j judgement) guardARP() (Verdict, bool) {
	a := j.p.ARP
	none := netip.IPv4Unspecified()
	switch {
	case a.Operation != 1 && a.Operation != 2:
		return drop(BadARP, "requests and replies only"), true
	case j.claimsARP() || j.asksARP():
		return Verdict{}, false
	case j.isVIP(a.Sender) || j.isVIP(a.Target):
		return drop(VIPARP, "nobody speaks ARP for a VIP"), true
	case j.in.guest() && a.Sender == none && a.SenderMAC == j.in.port.MAC && j.in.owns(a.Target):
		return Verdict{}, false
	case j.in.guest() && (a.SenderMAC != j.in.port.MAC || !j.in.owns(a.Sender)):
		return drop(SpoofedARP, "a port speaks ARP for its own addresses"), true
	case j.in.link() && a.Sender != none && !j.in.inNetwork(a.Sender):
		return drop(BadARP, "ARP stays among a network's own addresses"), true
	case j.local(a.Sender):
		return drop(SpoofedARP, "a guest of this blade speaks by its own port"), true
	case !j.in.inNetwork(a.Target):
		return drop(BadARP, "ARP stays among a network's own addresses"), true
	}
	return Verdict{}, false
}

func (j judgement) guardIPv4() (Verdict, bool) {
	ip := j.p.IP
	switch {
	case ip.Options:
		return drop(IPOptions, "no IPv4 options"), true
	case ip.Protocol == protoICMP && ip.Piece != LaterFragment && slices.Contains(icmpRouting, ip.Type):
		return drop(RouterAdvert, "routes are configured"), true
	case j.in.link():
		return j.guardLocal()
	case ip.Protocol == protoUDP && ip.Piece != LaterFragment && ip.SourcePort == 67:
		return drop(DHCPServer, "guests serve no DHCP"), true
	}
	return j.guardSource()
}

// guardLocal keeps a guest's address to its port.
func (j judgement) guardLocal() (Verdict, bool) {
	return drop(SpoofedIP, "a guest of this blade speaks by its own port"), j.local(j.p.IP.Source)
}

func (j judgement) guardSource() (Verdict, bool) {
	switch {
	case j.isVIP(j.p.IP.Source):
		return drop(SpoofedVIP, "only a service's real servers speak from its VIP, by eth0"), true
	case !j.in.owns(j.p.IP.Source):
		return drop(SpoofedIP, "a port speaks from its own addresses"), true
	}
	return Verdict{}, false
}

func (j judgement) guardIPv6() (Verdict, bool) {
	ip := j.p.IP
	if j.speaksVRRP() {
		return Verdict{}, false
	}
	allowed := []uint8{protoTCP, protoUDP, protoICMPv6, protoOSPF}
	if j.in.link() {
		allowed = append(allowed, protoVRRP)
	}
	if ip.Piece != Whole {
		allowed = allowed[:3]
	}
	if ip.Options || !slices.Contains(allowed, ip.Protocol) {
		return drop(IPv6Extension, "no extension header but one for fragments"), true
	}
	if ip.Protocol == protoICMPv6 && ip.Piece != LaterFragment {
		if v, guilty := j.guardICMPv6(); guilty {
			return v, true
		}
	}
	switch {
	case j.in.link():
		return j.guardLocal()
	case ip.Protocol == protoUDP && ip.Piece != LaterFragment && ip.SourcePort == 547:
		return drop(DHCPServer, "guests serve no DHCPv6"), true
	case ip.Source.IsUnspecified() && ip.Protocol == protoICMPv6 && ip.Piece != LaterFragment && ip.Type == ndSolicit:
		return Verdict{}, false
	case j.fromFloating():
		return Verdict{}, false
	}
	return j.guardSource()
}
