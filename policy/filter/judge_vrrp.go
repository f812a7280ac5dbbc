package filter

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// floats says whether an address is a VIP that lies in the network of the packet's bridge.
func (j judgement) floats(a netip.Addr) bool { return j.isVIP(a) && contains(j.in.segment.Subnets, a) }

// paired finds the directors that announce by VRRP on the packet's network.
func (j judgement) paired(match func(policy.Peer) bool) bool {
	return slices.ContainsFunc(j.b.Peers, func(p policy.Peer) bool {
		return p.VRRP != nil && p.Network == j.in.segment.Network && match(p)
	})
}

// sender says whether the frame is from such a director, by its MAC and by where that is.
func (j judgement) sender() bool {
	return j.paired(func(p policy.Peer) bool { return p.MAC == j.p.Source && j.at(p, j.in) })
}

// asked says whether somebody on the VLAN may ask for floating VIPs: one of the pair is on this blade.
func (j judgement) asked() bool {
	return j.in.link() && j.paired(func(p policy.Peer) bool { return p.Blade == j.b.Name })
}

// claimsARP says whether one of the pair says by ARP that a VIP is at its own MAC.
func (j judgement) claimsARP() bool {
	a := j.p.ARP
	return j.floats(a.Sender) && j.sender() && a.SenderMAC == j.p.Source && j.in.inNetwork(a.Target)
}

// asksARP says whether a neighbour on the VLAN asks for a floating VIP.
func (j judgement) asksARP() bool {
	a := j.p.ARP
	return a.Operation == 1 && j.asked() && j.floats(a.Target) && j.in.inNetwork(a.Sender) && !j.local(a.Sender) && !j.isVIP(a.Sender)
}

// claimsND is claimsARP for a neighbour advertisement: it has one option, the MAC.
func (j judgement) claimsND() bool {
	ip := j.p.IP
	if ip.Protocol != protoICMPv6 || ip.Piece != Whole || ip.Options || ip.Type != ndAdvertise || ip.Neighbour == nil {
		return false
	}
	n := ip.Neighbour
	return j.floats(n.Target) && j.sender() && len(n.Options) == 1 && n.Options[0] == NeighbourOption{Type: 2, Value: j.p.Source}
}

// fromFloating says whether such an advertisement comes from a floating VIP itself.
func (j judgement) fromFloating() bool { return j.claimsND() && j.floats(j.p.IP.Source) }

// asksND is asksARP for a solicitation.
func (j judgement) asksND() bool {
	ip := j.p.IP
	return ip.Type == ndSolicit && j.asked() && j.floats(ip.Neighbour.Target) && !ip.Source.IsUnspecified() && !j.isVIP(ip.Source)
}

// triesND says whether a neighbour asks a VIP itself whether it is still there, at a director that may have it.
func (j judgement) triesND() bool {
	ip := j.p.IP
	return ip.Protocol == protoICMPv6 && ip.Piece != LaterFragment && ip.Type == ndSolicit && j.floats(ip.Destination) &&
		j.in.link() && j.hearsPair()
}

// hearsPair says whether the packet is for a director that announces by VRRP.
func (j judgement) hearsPair() bool {
	return j.out.guest() && j.paired(func(p policy.Peer) bool { return j.at(p, j.out) })
}

// tryND judges that by the guards of neighbour discovery, past which packets for VIPs have come.
func (j judgement) tryND() Verdict {
	if j.p.IP.Options {
		return drop(BadND, "neighbours speak without extension headers")
	}
	if v, guilty := j.guardICMPv6(); guilty {
		return v
	}
	return allow("neighbour discovery", policy.Pos{})
}

// speaksVRRP says whether a director that announces by it sends VRRP over IPv6 from an address of its own.
func (j judgement) speaksVRRP() bool {
	ip := j.p.IP
	return ip.Protocol == protoVRRP && ip.Piece == Whole && !ip.Options && j.in.guest() && j.sender() && j.in.owns(ip.Source)
}

// advertises says whether one of a pair tells the other that it is there: from its own address, for the virtual router of a VIP, and from
// this link.
func (j judgement) advertises() bool {
	ip := j.p.IP
	if ip.Piece != Whole || ip.HopLimit != 255 || ip.Type != vrrpAdvertisement {
		return false
	}
	return j.paired(func(from policy.Peer) bool {
		own := slices.Contains(from.Addresses, ip.Source)
		if ip.Source.Is6() {
			own = ip.Source == policy.LinkLocal(from.MAC)
		}
		return own && j.at(from, j.in) && j.router(*from.VRRP) && j.paired(func(to policy.Peer) bool { return to.Guest != from.Guest && j.at(to, j.out) })
	})
}

// router says whether the packet is about the virtual router of one of the floating VIPs of its family.
func (j judgement) router(v policy.VRRP) bool {
	return slices.ContainsFunc(j.b.Services, func(s policy.Service) bool {
		return slices.ContainsFunc(s.VIPs, func(vip netip.Addr) bool {
			return j.floats(vip) && vip.Is4() == j.p.IP.Source.Is4() && v.Router(vip) == int(j.p.IP.Code)
		})
	})
}
