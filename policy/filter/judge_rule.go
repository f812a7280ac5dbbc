package filter

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// rule finds the first rule, by name, that allows the packet as the start of a connection; with back, as an answer to one.
func (j judgement) rule(back bool) *policy.Rule {
	ip := j.p.IP
	if ip.Options || ip.Piece == LaterFragment || ip.Source.Is6() && ip.Piece != Whole {
		return nil
	}
	from, to, port := ip.Source, ip.Destination, ip.DestinationPort
	if back {
		from, to, port = ip.Destination, ip.Source, ip.SourcePort
	}
	rules := slices.Clone(j.b.Rules)
	slices.SortFunc(rules, func(a, b policy.Rule) int { return strings.Compare(a.Name, b.Name) })
	for i, r := range rules {
		if j.selects(r.From, r.FromAny, from) && j.selects(r.To, r.ToAny, to) && j.allows(r, port, back) {
			return &rules[i]
		}
	}
	return nil
}

func (j judgement) selects(prefixes []netip.Prefix, any bool, a netip.Addr) bool {
	if any {
		return !j.isGuest(a)
	}
	return contains(prefixes, a)
}

func (j judgement) allows(r policy.Rule, port uint16, back bool) bool {
	ip := j.p.IP
	f := familyOf(ip.Source)
	return slices.ContainsFunc(r.Allow, func(a policy.PortRange) bool {
		if a.Protocol == policy.ICMP {
			return !back && ip.Protocol == f.icmp && ip.Type == f.echo
		}
		return ip.Protocol == protocolNumber(a.Protocol, f) && a.First <= port && port <= a.Last
	})
}

// derived says whether the packet starts a connection that follows from the policy: a health check, BGP or BFD.
func (j judgement) derived() (string, bool) {
	ip := j.p.IP
	if ip.Options || ip.Piece == LaterFragment || ip.Source.Is6() && ip.Piece != Whole {
		return "", false
	}
	for _, s := range j.b.Services {
		if j.isCheck(s) {
			return "health check of " + string(s.Name), true
		}
	}
	for _, g := range j.b.Guests {
		for _, p := range g.Ports {
			if g.Balancer == nil || p.Interface != "eth0" || g.Role != policy.RoleDirector {
				continue
			}
			a := g.Balancer.Announce
			routers := j.routersOf(p, a)
			out := slices.Contains(p.Addresses, ip.Source) && slices.Contains(routers, ip.Destination)
			back := slices.Contains(p.Addresses, ip.Destination) && slices.Contains(routers, ip.Source)
			switch {
			case !out && !back:
			case a.BGP != nil && ip.Protocol == protoTCP && ip.DestinationPort == 179:
				return "BGP of " + string(g.Name), true
			case a.Watched().Enabled() && ip.Protocol == protoUDP && (ip.DestinationPort == 3784 || ip.DestinationPort == 4784):
				return "BFD of " + string(g.Name), true
			}
		}
	}
	return "", false
}

func (j judgement) routersOf(p policy.Port, a policy.Announce) []netip.Addr {
	if len(a.Routers) > 0 {
		return a.Routers
	}
	return j.end(p.Name).segment.Routers
}

func (j judgement) isCheck(s policy.Service) bool {
	ip := j.p.IP
	from := slices.ContainsFunc(j.b.Peers, func(p policy.Peer) bool {
		return p.Role == policy.RoleDirector && p.Interface == "eth1" && slices.Contains(p.Addresses, ip.Source)
	})
	to := slices.ContainsFunc(j.b.Peers, func(p policy.Peer) bool {
		return p.Interface == "eth1" && slices.Contains(s.Servers, p.Guest) && slices.Contains(p.Addresses, ip.Destination)
	})
	return from && to && slices.ContainsFunc(s.Checks, func(c policy.PortRange) bool {
		return c.Protocol != policy.ICMP && ip.Protocol == protocolNumber(c.Protocol, ipv4) && c.First <= ip.DestinationPort && ip.DestinationPort <= c.Last
	})
}

// routing says whether the packet belongs to a routing protocol that a director of this blade speaks with its routers, or to
// routers among themselves.
func (j judgement) routing() bool {
	ip := j.p.IP
	f := familyOf(ip.Source)
	if ip.Options || ip.Piece != Whole && f.suffix == "6" {
		return false
	}
	director, router, atDirector, atRouter := j.in, j.out, ip.Source, ip.Destination
	if j.in.link() {
		director, router, atDirector, atRouter = j.out, j.in, ip.Destination, ip.Source
	}
	switch {
	case ip.Protocol == protoUDP && ip.DestinationPort == syncPort && ip.Destination == netip.MustParseAddr(syncGroup):
		return ip.Piece == Whole && j.syncs()
	case ip.Protocol == protoVRRP:
		return ip.Destination == netip.MustParseAddr(vrrpGroup[f.suffix]) && (j.in.link() && j.fromRouter() && !j.hearsPair() || j.advertises())
	case !router.link() || director.place != directorUplink:
		return false
	case ip.Protocol == protoOSPF:
		return j.ospf(director, atDirector, atRouter)
	}
	a := j.announceOf(director)
	return ip.Protocol == protoUDP && ip.DestinationPort == 3784 && a.Watched().Enabled() && f.suffix == "6" &&
		ip.Source.IsLinkLocalUnicast() && ip.Destination.IsLinkLocalUnicast()
}

// syncs says whether a director tells one of its own number, which is where the packet goes, of its connections.
func (j judgement) syncs() bool {
	is := j.at
	for _, from := range j.b.Peers {
		if from.Sync == 0 || !slices.Contains(from.Addresses, j.p.IP.Source) || !is(from, j.in) {
			continue
		}
		for _, to := range j.b.Peers {
			if to.Sync == from.Sync && to.Network == from.Network && to.Guest != from.Guest && is(to, j.out) {
				return true
			}
		}
	}
	return false
}

// at says whether a guest's interface speaks by an end of the bridge: its port, or the VLAN link when it is on another blade.
func (j judgement) at(p policy.Peer, e end) bool {
	if p.Blade == j.b.Name {
		return e.guest() && e.port.Guest == p.Guest && e.port.Interface == p.Interface
	}
	return e.link() && e.segment.Network == p.Network
}

func (j judgement) fromRouter() bool {
	if j.p.IP.Source.Is6() {
		return j.p.IP.Source.IsLinkLocalUnicast()
	}
	return slices.Contains(j.in.segment.Routers, j.p.IP.Source)
}

func (j judgement) announceOf(e end) policy.Announce {
	for _, g := range j.b.Guests {
		if g.Name == e.port.Guest && g.Balancer != nil {
			return g.Balancer.Announce
		}
	}
	return policy.Announce{}
}

// ospf judges a packet between a director and what stands at the other end of its uplink.
func (j judgement) ospf(director end, atDirector, atRouter netip.Addr) bool {
	a := j.announceOf(director)
	if a.OSPF == nil {
		return false
	}
	ip := j.p.IP
	f := familyOf(ip.Source)
	group := slices.Contains(ospfGroups[f.suffix], ip.Destination.String())
	isRouter := func(a2 netip.Addr) bool {
		if f.suffix == "6" {
			return a2.IsLinkLocalUnicast()
		}
		return slices.Contains(j.routersOf(*director.port, a), a2)
	}
	if j.in.guest() {
		return group || isRouter(atRouter)
	}
	return isRouter(atRouter) && (group || director.owns(atDirector) && j.p.Destination == director.port.MAC)
}
