package filter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

func isIPv6(a netip.Addr) bool { return a.Is6() }

// hear judges who may receive a packet whose sender is who it says.
func (j judgement) hear() Verdict {
	ip := j.p.IP
	if ip != nil {
		if v, ok := j.vipWay(); ok {
			return v
		}
	}
	switch {
	case j.out.unknown():
		return drop(UnnamedPort, "no port of that name")
	case ip == nil:
		return allow("ARP among neighbours", policy.Pos{})
	case j.isVIP(ip.Destination):
		return j.toVIP()
	case j.fromFloating():
		return allow("a director says that it has the VIP", policy.Pos{})
	case j.isVIP(ip.Source):
		return j.fromVIP()
	case ip.Protocol == protoICMPv6 && ip.Destination.Is6() && ip.Piece != LaterFragment &&
		slices.Contains([]uint8{ndSolicit, ndAdvertise, ndRouter}, ip.Type):
		return allow("neighbour discovery", policy.Pos{})
	case j.routing():
		return allow("routing protocols between a director and its routers", policy.Pos{})
	case j.toGroup() || isGroup(ip.Destination):
		return drop(Multicast, "no protocol needs this group")
	case j.out.guest() && (!j.out.owns(ip.Destination) || j.p.Destination != j.out.port.MAC):
		return drop(Misdirected, "a port hears what is for its own address and MAC")
	}
	return j.stateful()
}

// toGroup says whether the frame is for more than one receiver.
func (j judgement) toGroup() bool { return j.p.Destination[0]&1 != 0 }

// isGroup says whether an address is nobody's own: multicast, and in IPv4 broadcast and what is reserved.
func isGroup(a netip.Addr) bool { return a.IsMulticast() || a.Is4() && a.As4()[0] >= 224 }

// stateful judges what conntrack follows.
func (j judgement) stateful() Verdict {
	switch j.p.State {
	case Established, Related:
		return allow("part of an allowed connection", policy.Pos{})
	case Invalid:
		return drop(BadState, "part of no connection")
	}
	if rule, ok := j.derived(); ok {
		return allow(rule, policy.Pos{})
	}
	if r := j.rule(false); r != nil {
		return allow("rule "+r.Name, r.Pos)
	}
	return drop(NoRule, "no rule allows it")
}

// vipWay is the plain way of a VIP's packets: from the VLAN to a director, from a director to a real server, from a real server
// to the VLAN.
func (j judgement) vipWay() (Verdict, bool) {
	ip := j.p.IP
	switch {
	case ip.Piece != Whole || ip.Options:
	case j.out.place == directorUplink && !j.isGuest(ip.Source):
		if s := j.service(ip.Destination, ip.DestinationPort); s != nil && len(s.Clients) == 0 {
			return allow("service "+string(s.Name), s.Pos), true
		}
	case j.out.place == serverService && j.fromDirector():
		if s := j.service(ip.Destination, ip.DestinationPort); s != nil && slices.Contains(s.Servers, j.out.port.Guest) {
			return allow("service "+string(s.Name), s.Pos), true
		}
	}
	switch {
	case j.answers() || ip.Piece == FirstFragment && ip.Source.Is4() && j.answersFrom():
		return j.fromVIP(), true
	case j.in.guest() && j.directRoute() && !(ip.Destination.Is4() && ip.Options):
		return j.routeDirectly(), true
	}
	return Verdict{}, false
}

// answers says whether a real server of this blade sends the packet from a port of a service that it serves.
func (j judgement) answers() bool { return j.p.IP.Piece == Whole && j.answersFrom() }

func (j judgement) answersFrom() bool {
	ip := j.p.IP
	if !j.in.guest() || ip.Options {
		return false
	}
	s := j.service(ip.Source, ip.SourcePort)
	return s != nil && slices.Contains(s.Servers, j.in.port.Guest)
}

func (j judgement) bareSyn() bool {
	ip := j.p.IP
	return ip.Protocol == protoTCP && ip.Piece != LaterFragment && ip.Flags&(policy.FlagSYN|policy.FlagACK) == policy.FlagSYN
}

// service finds the service of a VIP that has a port of the packet's protocol.
func (j judgement) service(vip netip.Addr, port uint16) *policy.Service {
	return j.serviceFor(vip, j.p.IP.Protocol, port)
}

func (j judgement) serviceFor(vip netip.Addr, protocol uint8, port uint16) *policy.Service {
	for i, s := range j.b.Services {
		if slices.Contains(s.VIPs, vip) && slices.ContainsFunc(s.Ports, func(r policy.PortRange) bool {
			return r.Protocol != policy.ICMP && protocolNumber(r.Protocol, ipv4) == protocol && r.First <= port && port <= r.Last
		}) {
			return &j.b.Services[i]
		}
	}
	return nil
}

// udpPiece says whether the packet is a piece of a UDP packet that a VIP's service may have: for a later one the VIP must have
// any UDP service that matches, for a first one the port counts.
func (j judgement) udpPiece(vip netip.Addr, port uint16, match func(policy.Service) bool) bool {
	ip := j.p.IP
	if ip.Protocol != protoUDP || ip.Options {
		return false
	}
	switch ip.Piece {
	case FirstFragment:
		s := j.service(vip, port)
		return s != nil && match(*s)
	case LaterFragment:
		return slices.ContainsFunc(j.b.Services, func(s policy.Service) bool {
			return slices.Contains(s.VIPs, vip) && servesUDP(s) && match(s)
		})
	}
	return false
}

// quotes says whether the packet is an ICMP error about a packet that a service sent from the VIP.
func (j judgement) quotes() bool {
	ip := j.p.IP
	f := familyOf(ip.Destination)
	if ip.Piece != Whole || ip.Options || ip.Protocol != f.icmp || !slices.Contains(icmpErrors[f.suffix], ip.Type) || ip.Quoted == nil {
		return false
	}
	q := ip.Quoted
	return !q.Options && q.Source == ip.Destination && j.serviceFor(q.Source, q.Protocol, q.SourcePort) != nil
}

// refuse names the reason for which a packet to a VIP is dropped.
func (j judgement) refuse() Verdict {
	ip := j.p.IP
	switch {
	case ip.Protocol == familyOf(ip.Destination).icmp:
		return drop(VIPICMP, "a VIP hears ICMP errors about its services' packets only")
	case ip.Piece != Whole && !ip.Options:
		return drop(VIPFragment, "fragments only for UDP services")
	}
	return drop(VIPPort, fmt.Sprintf("no service of %s has this port", ip.Destination))
}

func always(policy.Service) bool { return true }

// routeDirectly judges a director's packet to a real server, out of the blade or to a guest of it.
func (j judgement) routeDirectly() Verdict {
	ip := j.p.IP
	switch {
	case j.out.guest():
		return j.toServer()
	case j.out.unknown():
		return drop(UnnamedPort, "no port of that name")
	case ip.Piece == Whole:
		if s := j.service(ip.Destination, ip.DestinationPort); s != nil && !ip.Options {
			return allow("service "+string(s.Name), s.Pos)
		}
	}
	if j.udpPiece(ip.Destination, ip.DestinationPort, always) || j.quotes() {
		return allow("direct routing", policy.Pos{})
	}
	return j.refuse()
}

// toServer judges what a real server of this blade gets for its VIPs.
func (j judgement) toServer() Verdict {
	ip := j.p.IP
	here := func(s policy.Service) bool {
		return j.out.place == serverService && slices.Contains(s.Servers, j.out.port.Guest)
	}
	if j.fromDirector() {
		if s := j.service(ip.Destination, ip.DestinationPort); s != nil && here(*s) && ip.Piece == Whole && !ip.Options {
			return allow("service "+string(s.Name), s.Pos)
		}
		if j.udpPiece(ip.Destination, ip.DestinationPort, here) {
			return allow("direct routing", policy.Pos{})
		}
		if j.out.place == serverService && j.serves(j.out, ip.Destination) && j.quotes() {
			return allow("direct routing", policy.Pos{})
		}
		return j.refuse()
	}
	return drop(VIPNotDR, "a real server takes VIP packets from directors only")
}

// toVIP judges packets to a VIP that are off the plain way.
func (j judgement) toVIP() Verdict {
	ip := j.p.IP
	if j.in.guest() {
		return j.guestClient()
	}
	if j.triesND() {
		return j.tryND()
	}
	if j.out.place == serverService && j.serves(j.out, ip.Destination) {
		return j.toServer()
	}
	if j.out.place != directorUplink {
		return j.refuse()
	}
	if s := j.service(ip.Destination, ip.DestinationPort); s != nil && ip.Piece != LaterFragment && !ip.Options {
		if j.client(*s) && (ip.Piece == Whole || ip.Protocol == protoUDP) {
			return allow("service "+string(s.Name), s.Pos)
		}
		if ip.Piece == Whole {
			v := drop(VIPClient, fmt.Sprintf("%s is no client of %s", ip.Source, s.Name))
			v.Pos = s.Pos
			return v
		}
	}
	if ip.Piece == LaterFragment && j.udpPiece(ip.Destination, 0, always) || j.quotes() {
		return allow("direct routing", policy.Pos{})
	}
	return j.refuse()
}

// client says whether the packet's source is a client of a service. Anybody is everybody but guests and blades.
func (j judgement) client(s policy.Service) bool {
	if len(s.Clients) == 0 {
		return !j.isGuest(j.p.IP.Source)
	}
	return contains(s.Clients, j.p.IP.Source)
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// guestClient judges a guest that asks a VIP: a rule must let it out of its blade.
func (j judgement) guestClient() Verdict {
	if j.out.guest() {
		return drop(VIPClient, "a guest reaches a VIP by its router")
	}
	if r := j.rule(false); r != nil {
		return allow("rule "+r.Name, r.Pos)
	}
	return drop(NoRule, "no rule lets this guest ask the VIP")
}

// fromVIP judges answers from a VIP.
func (j judgement) fromVIP() Verdict {
	ip := j.p.IP
	switch {
	case j.out.unknown() && ip.Piece != Whole:
		return drop(UnnamedPort, "no port of that name")
	case j.in.link():
		return j.toClient()
	}
	own := func(s policy.Service) bool { return slices.Contains(s.Servers, j.in.port.Guest) }
	switch {
	case j.bareSyn():
		return drop(VIPSyn, "no connection starts from a VIP")
	case j.toGroup():
		return drop(Multicast, "an answer goes to one receiver")
	case j.answers() && j.out.link():
		s := j.service(ip.Source, ip.SourcePort)
		return allow("service "+string(s.Name), s.Pos)
	case j.answers():
		return j.toClient()
	case j.out.link() && j.udpPiece(ip.Source, ip.SourcePort, own):
		return allow("fragment of an answer", policy.Pos{})
	case ip.Protocol == familyOf(ip.Source).icmp:
		return drop(VIPICMP, "a VIP sends no ICMP")
	case ip.Piece != Whole && !ip.Options:
		return drop(VIPFragment, "fragments only for UDP services")
	}
	return drop(VIPSource, fmt.Sprintf("%s answers from no such port of %s", j.in.port.Guest, ip.Source))
}

// toClient judges an answer from a VIP to a guest of this blade.
func (j judgement) toClient() Verdict {
	ip := j.p.IP
	switch {
	case !j.out.guest():
		return drop(UnnamedPort, "an answer has no way there")
	case !j.out.owns(ip.Destination) || j.p.Destination != j.out.port.MAC:
		return drop(Misdirected, "a port hears what is for its own address and MAC")
	case j.bareSyn():
		return drop(VIPSyn, "no connection starts from a VIP")
	case j.probed():
		return allow("answer to a director's probe of the VIP", policy.Pos{})
	case ip.Piece == LaterFragment && j.udpPiece(ip.Source, 0, always):
		return allow("fragment of an answer", policy.Pos{})
	case ip.Piece != LaterFragment && !(ip.Source.Is6() && ip.Piece != Whole) && !ip.Options:
		if r := j.rule(true); r != nil && j.service(ip.Source, ip.SourcePort) != nil {
			return allow("rule "+r.Name, r.Pos)
		}
	}
	return drop(NoRule, "no rule let this guest ask the VIP")
}

// probed says whether the packet is what answers a SYN, from a service to a director's own address on the uplink.
func (j judgement) probed() bool {
	ip := j.p.IP
	if ip.Protocol != protoTCP || ip.Piece != Whole || ip.Options || j.out.place != directorUplink || !slices.Contains(j.out.port.Addresses, ip.Destination) {
		return false
	}
	acknowledges := ip.Flags&policy.FlagACK != 0 && ip.Flags&policy.FlagFIN == 0
	oneOf := (ip.Flags&policy.FlagSYN != 0) != (ip.Flags&policy.FlagRST != 0)
	return acknowledges && oneOf && j.service(ip.Source, ip.SourcePort) != nil
}
