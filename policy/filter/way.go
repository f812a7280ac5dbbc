package filter

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// attached is a guest's port and the blade that it is on.
type attached struct {
	blade policy.Blade
	port  policy.Port
}

// leg is a packet on one bridge of one blade.
type leg struct {
	blade  policy.Blade
	packet Packet
}

// ways lists the ways of a packet: its sender's bridge if a guest sends it, then for a VIP every director and every real server
// behind it, and for a guest its bridge.
func (e *Explainer) ways(x policy.Expectation) [][]leg {
	target := e.target(x)
	sender, fromGuest := e.sender(x, target)
	source := e.source(x, sender, fromGuest, target)
	if !target.IsValid() {
		return nil
	}
	p := newPacket(x, source, target)
	var start []leg
	receiver, toGuest := e.byAddress(target)
	if fromGuest {
		out := sender.link()
		if toGuest && receiver.blade.Name == sender.blade.Name && receiver.port.Bridge == sender.port.Bridge {
			return [][]leg{{{sender.blade, p.between(sender.port.Name, receiver.port.Name, sender.port.MAC, receiver.port.MAC)}}}
		}
		start = []leg{{sender.blade, p.between(sender.port.Name, out, sender.port.MAC, routerMAC)}}
	}
	if toGuest {
		in := receiver.link()
		return [][]leg{append(start, leg{receiver.blade, p.between(in, receiver.port.Name, routerMAC, receiver.port.MAC)})}
	}
	if ways := e.balanced(p, start); len(ways) > 0 {
		return ways
	}
	return [][]leg{start}
}

// link names the VLAN link of the bridge that the port is on.
func (a attached) link() string {
	i := slices.IndexFunc(a.blade.Segments, func(s policy.Segment) bool { return s.Network == a.port.Network })
	if i < 0 {
		return ""
	}
	return a.blade.Segments[i].Link
}

// balanced lists the ways of a packet to a VIP: each director may get it, and may choose each real server of the service.
func (e *Explainer) balanced(p Packet, start []leg) [][]leg {
	var ways [][]leg
	for _, d := range e.byBlade() {
		b := e.blade(d.Blade)
		if !hasVIP(b, p.IP.Destination) {
			continue
		}
		for _, g := range b.Guests {
			if g.Name != d.Name {
				continue
			}
			eth0, eth1 := attached{b, g.Ports[0]}, attached{b, g.Ports[1]}
			in := leg{b, p.between(eth0.link(), eth0.port.Name, routerMAC, eth0.port.MAC)}
			if hops := e.routed(p, eth1); len(hops) > 0 {
				for _, h := range hops {
					ways = append(ways, slices.Concat(start, []leg{in}, h))
				}
				continue
			}
			ways = append(ways, slices.Concat(start, []leg{in}))
		}
	}
	return ways
}

// routed lists the bridges between a director's eth1 and each real server of the packet's service.
func (e *Explainer) routed(p Packet, director attached) [][]leg {
	j := judgement{b: director.blade, p: p}
	s := j.service(p.IP.Destination, p.IP.DestinationPort)
	if s == nil {
		return nil
	}
	var hops [][]leg
	for _, peer := range director.blade.Peers {
		if peer.Interface != "eth1" || !slices.Contains(s.Servers, peer.Guest) || len(peer.Addresses) == 0 {
			continue
		}
		server, ok := e.byAddress(peer.Addresses[0])
		if !ok {
			continue
		}
		if server.blade.Name == director.blade.Name {
			hops = append(hops, []leg{{director.blade, p.between(director.port.Name, server.port.Name, director.port.MAC, server.port.MAC)}})
			continue
		}
		hops = append(hops, []leg{
			{director.blade, p.between(director.port.Name, director.link(), director.port.MAC, server.port.MAC)},
			{server.blade, p.between(server.link(), server.port.Name, director.port.MAC, server.port.MAC)},
		})
	}
	return hops
}

func hasVIP(b policy.Blade, a netip.Addr) bool { return judgement{b: b}.isVIP(a) }

// byBlade lists the directors in the order of their blades' names, then their own.
func (e *Explainer) byBlade() []policy.Director {
	return slices.SortedFunc(slices.Values(e.fleet.Directors), func(a, b policy.Director) int {
		return cmp.Or(cmp.Compare(a.Blade, b.Blade), cmp.Compare(a.Name, b.Name))
	})
}

// byAddress finds the guest's port that has an address.
func (e *Explainer) byAddress(a netip.Addr) (attached, bool) {
	return e.find(e.guests[a], func(p policy.Port) bool { return slices.Contains(p.Addresses, a) })
}

func (e *Explainer) byName(g policy.GuestName, iface string) (attached, bool) {
	return e.find(g, func(p policy.Port) bool { return p.Interface == iface })
}

// find looks for a port of a guest.
func (e *Explainer) find(name policy.GuestName, match func(policy.Port) bool) (attached, bool) {
	entry, ok := e.fleet.Guest(name)
	if !ok {
		return attached{}, false
	}
	b := e.blade(entry.Blade)
	for _, g := range b.Guests {
		if i := slices.IndexFunc(g.Ports, match); g.Name == name && i >= 0 {
			return attached{b, g.Ports[i]}, true
		}
	}
	return attached{}, false
}

// target is the address that the packet goes to: for a guest its eth0's, in the family of who asks.
func (e *Explainer) target(x policy.Expectation) netip.Addr {
	if x.To.Address.IsValid() {
		return x.To.Address
	}
	g, _ := e.byName(x.To.Guest, "eth0")
	asks := x.As
	if !asks.IsValid() {
		asks = x.From.Address
	}
	return sameFamily(g.port.Addresses, asks)
}

// sender is the port by which a guest sends: eth0, or eth1 to its service network.
func (e *Explainer) sender(x policy.Expectation, target netip.Addr) (attached, bool) {
	if x.From.Guest == "" {
		if !x.From.Address.IsValid() {
			return attached{}, false
		}
		return e.byAddress(x.From.Address)
	}
	if eth1, ok := e.byName(x.From.Guest, "eth1"); ok && target.IsValid() {
		i := slices.IndexFunc(eth1.blade.Segments, func(s policy.Segment) bool { return s.Network == eth1.port.Network })
		if i >= 0 && contains(eth1.blade.Segments[i].Subnets, target) {
			return eth1, true
		}
	}
	return e.byName(x.From.Guest, "eth0")
}

func (e *Explainer) source(x policy.Expectation, sender attached, fromGuest bool, target netip.Addr) netip.Addr {
	switch {
	case x.As.IsValid():
		return x.As
	case x.From.Address.IsValid():
		return x.From.Address
	case fromGuest:
		return sameFamily(sender.port.Addresses, target)
	case target.Is6():
		return netip.IPv6Unspecified() // a blade, whose address no rule names
	}
	return netip.IPv4Unspecified()
}

// sameFamily picks the first address of another's family; with none to follow, the first.
func sameFamily(list []netip.Addr, like netip.Addr) netip.Addr {
	i := slices.IndexFunc(list, func(a netip.Addr) bool { return !like.IsValid() || a.Is4() == like.Is4() })
	if i < 0 {
		return netip.Addr{}
	}
	return list[i]
}

// newPacket is the first packet of a new connection, or what the expectation's flags and ports say.
func newPacket(x policy.Expectation, source, target netip.Addr) Packet {
	f := familyOf(target)
	ip := IP{
		Source: source, Destination: target, HopLimit: 64, Protocol: protocolNumber(x.Protocol, f),
		SourcePort: x.SourcePort, DestinationPort: x.Port, Flags: x.Flags,
	}
	p := Packet{EtherType: f.etherType, IP: &ip}
	if ip.SourcePort == 0 {
		ip.SourcePort = ephemeral
	}
	switch {
	case x.Protocol == policy.ICMP:
		ip.Type, ip.SourcePort = f.echo, 0
	case x.Protocol == policy.TCP && ip.Flags == 0:
		ip.Flags = policy.FlagSYN
	case x.Protocol == policy.TCP && ip.Flags != policy.FlagSYN && ip.Flags&(policy.FlagSYN|policy.FlagRST|policy.FlagACK) != policy.FlagACK:
		p.State = Invalid // only a SYN, or an ACK out of the middle, can begin what conntrack follows
	}
	return p
}

// between is the packet on a bridge: by which ports, from and to which MAC.
func (p Packet) between(in, out string, from, to policy.MAC) Packet {
	p.In, p.Out, p.Source, p.Destination = in, out, from, to
	return p
}
