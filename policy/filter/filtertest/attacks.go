package filtertest

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// Attack is one frame that somebody with every right inside a guest, or on the VLAN, may try, and the reason for which it is dropped.
type Attack struct {
	Class  string
	Packet filter.Packet // In is the port that it comes from
	Raw    []byte        // the frame, where Packet cannot say it
	Reason filter.Reason // empty: it ends at the port, unforwarded, and no rule ever sees it
}

// Frame is the attack as it stands on the wire, marked where Packet.Frame marks.
func (a Attack) Frame(mark uint32) []byte {
	if a.Raw != nil {
		return a.Raw
	}
	return a.Packet.Frame(mark)
}

// scene is where an attack takes place: the attacker's port, and whom it may want to be.
type scene struct {
	blade    policy.Blade
	segment  policy.Segment
	in       string
	mac      policy.MAC
	own      map[bool]netip.Addr // by family: true is IPv6
	victim   policy.MAC
	other    map[bool]netip.Addr // the victim's, on the same network
	role     policy.Role
	guest    policy.GuestName
	director bool         // announces by OSPF
	pair     *policy.Peer // the director whose port it is, where it announces by VRRP
	out      []Attack
}

// Attacks lists what a guest may try by both its ports, each class of frame in each family that the port has. The list depends on the
// blade only.
func Attacks(b policy.Blade, guest policy.GuestName) []Attack {
	var out []Attack
	for _, g := range b.Guests {
		if g.Name != guest {
			continue
		}
		for _, p := range g.Ports {
			s := newScene(b, g, p)
			s.frames()
			s.arp()
			for _, v6 := range []bool{false, true} {
				if s.own[v6].IsValid() && s.other[v6].IsValid() {
					s.addresses(v6)
					s.vips(v6, p)
				}
			}
			s.onlyIPv4()
			s.onlyIPv6()
			s.ofPair()
			out = append(out, s.out...)
		}
	}
	return out
}

func newScene(b policy.Blade, g policy.Guest, p policy.Port) *scene {
	s := &scene{blade: b, in: p.Name, mac: p.MAC, own: map[bool]netip.Addr{}, other: map[bool]netip.Addr{}, role: g.Role, guest: g.Name, victim: RouterMAC}
	s.segment = b.Segments[slices.IndexFunc(b.Segments, func(s policy.Segment) bool { return s.Network == p.Network })]
	for _, a := range p.Addresses {
		s.own[a.Is6()] = a
	}
	for _, r := range s.segment.Routers {
		s.other[r.Is6()] = r
	}
	for _, peer := range b.Peers {
		if peer.Network != p.Network || peer.Guest == g.Name {
			continue
		}
		s.victim = peer.MAC
		for _, a := range peer.Addresses {
			s.other[a.Is6()] = a
		}
	}
	for _, peer := range b.Peers {
		if peer.VRRP != nil && peer.MAC == p.MAC {
			s.pair = &peer
		}
	}
	s.director = g.Balancer != nil && g.Balancer.Announce.OSPF != nil && s.segment.Role == policy.NetworkUplink
	return s
}

func (s *scene) add(class string, reason filter.Reason, p filter.Packet) {
	p.In = s.in
	if p.IP != nil {
		p.State = State(*p.IP)
	}
	s.out = append(s.out, Attack{Class: class, Packet: p, Reason: reason})
}

func (s *scene) raw(class string, reason filter.Reason, destination policy.MAC, body ...byte) {
	frame := append(append(destination[:], s.mac[:]...), body...)
	for len(frame) < 60 {
		frame = append(frame, 0xb1)
	}
	s.out = append(s.out, Attack{Class: class, Packet: filter.Packet{In: s.in}, Raw: frame, Reason: reason})
}

// Groups that end at a bridge, or that a vendor's bridges use.
var (
	bridgeGroup = policy.MAC{0x01, 0x80, 0xc2, 0, 0, 0}
	lldpGroup   = policy.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	ciscoGroup  = policy.MAC{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd}
)

// frames are attacks below IP.
func (s *scene) frames() {
	stolen := func(m policy.MAC) filter.Packet {
		p := s.announce(s.own[false], s.own[false])
		p.Source = m
		return p
	}
	s.add("a neighbour's MAC as sender", filter.SpoofedMAC, stolen(s.victim))
	s.add("a MAC of nobody as sender", filter.SpoofedMAC, stolen(policy.MAC{0x02, 9, 9, 9, 9, 9}))
	tagged := s.announce(s.own[false], s.own[false])
	tagged.Tagged = true
	s.add("802.1Q tag", filter.VLANTag, tagged)
	s.raw("802.1ad tag", filter.VLANTag, broadcast, 0x88, 0xa8, 0, 5, 0x08, 0x06)
	s.raw("two 802.1Q tags", filter.VLANTag, broadcast, 0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x08, 0x06)
	s.raw("802.1Q tag in an 802.1ad one", filter.VLANTag, broadcast, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0x06)
	s.raw("priority tag", filter.VLANTag, broadcast, 0x81, 0, 0xe0, 0, 0x08, 0x06)
	s.raw("spanning tree", filter.LinkProtocol, bridgeGroup, 0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0, 0x80, 0)
	s.raw("spanning tree of a vendor", filter.UnknownType, ciscoGroup, 0, 50, 0xaa, 0xaa, 3, 0, 0, 0x0c, 0x01, 0x0b)
	s.raw("LLDP to bridges", filter.LinkProtocol, bridgeGroup, 0x88, 0xcc, 2, 7, 4)
	s.raw("LLDP to neighbours", "", lldpGroup, 0x88, 0xcc, 2, 7, 4)
	s.raw("LLDP to everybody", filter.UnknownType, broadcast, 0x88, 0xcc, 2, 7, 4)
	for _, x := range []struct {
		class     string
		etherType uint16
	}{{"RARP", 0x8035}, {"MPLS", 0x8847}, {"PPPoE discovery", 0x8863}, {"Ethernet loopback", 0x9000}, {"IEEE 802.2 frame", 46}, {"local experiment", 0x88b5}} {
		s.raw(x.class, filter.UnknownType, broadcast, byte(x.etherType>>8), byte(x.etherType), 1)
	}
}

// announce is an ARP reply to everybody, from an address for an address.
func (s *scene) announce(sender, target netip.Addr) filter.Packet {
	return filter.Packet{
		Source: s.mac, Destination: broadcast, EtherType: 0x0806,
		ARP: &filter.ARP{Operation: 2, SenderMAC: s.mac, Sender: sender, Target: target},
	}
}

func (s *scene) arp() {
	own, other := s.own[false], s.other[false]
	if !own.IsValid() || !other.IsValid() {
		return
	}
	s.add("ARP reply for a neighbour's address", filter.SpoofedARP, s.announce(other, own))
	s.add("gratuitous ARP for a neighbour's address", filter.SpoofedARP, s.announce(other, other))
	s.add("ARP probe for a neighbour's address", filter.SpoofedARP, s.announce(netip.IPv4Unspecified(), other))
	wrong := s.announce(own, other)
	wrong.ARP.SenderMAC = s.victim
	s.add("ARP reply with another MAC inside", filter.SpoofedARP, wrong)
	for _, vip := range s.vipsOf(false) {
		s.add("ARP request for a VIP", filter.VIPARP, s.announce(own, vip))
		if s.pair != nil {
			continue
		}
		s.add("gratuitous ARP for a VIP", filter.VIPARP, s.announce(vip, vip))
		ask := s.announce(vip, other)
		ask.ARP.Operation = 1
		s.add("ARP request from a VIP", filter.VIPARP, ask)
	}
	s.add("ARP about a stranger", filter.BadARP, s.announce(own, netip.MustParseAddr("198.18.0.7")))
	odd := s.announce(own, other)
	odd.ARP.Operation = 3
	s.add("RARP in ARP", filter.BadARP, odd)
	form := s.announce(own, other).Frame(0)
	s.raw("ARP of another hardware", filter.BadARP, broadcast, append([]byte{0x08, 0x06, 0, 6}, form[16:]...)...)
}

func (s *scene) vipsOf(v6 bool) []netip.Addr {
	for _, service := range s.blade.Services {
		for _, vip := range service.VIPs {
			if vip.Is6() == v6 {
				return []netip.Addr{vip}
			}
		}
	}
	return nil
}

// LinkAttacks lists what somebody on the VLANs may try against the guests of a blade.
func LinkAttacks(b policy.Blade) []Attack {
	var out []Attack
	for _, g := range b.Guests {
		for _, p := range g.Ports {
			s := newScene(b, g, p)
			s.in, s.mac, s.guest = s.segment.Link, RouterMAC, ""
			s.impersonate(p)
			s.intrude(p)
			s.intrudeOnPair(p)
			out = append(out, s.out...)
		}
	}
	return out
}

// impersonate are frames from the VLAN that say they are from a guest of this blade.
func (s *scene) impersonate(p policy.Port) {
	if own, other := s.own[false], s.other[false]; own.IsValid() && other.IsValid() {
		moved := s.announce(other, other)
		moved.Source = p.MAC
		s.add("a guest's MAC from the VLAN", filter.SpoofedMAC, moved)
		s.add("ARP for a guest's address from the VLAN", filter.SpoofedARP, s.announce(own, own))
		s.add("a guest's address from the VLAN", filter.SpoofedIP, s.packet(s.udp(own, stranger(false), 40000, unused)))
	}
	if own, other := s.own[true], s.other[true]; own.IsValid() && other.IsValid() {
		s.add("advertisement of a guest's address from the VLAN", filter.SpoofedND, s.packet(s.advert(other, own, s.mac)))
		s.add("neighbour message from a guest's address from the VLAN", filter.SpoofedND, s.packet(s.advert(own, other, s.mac)))
		s.add("a guest's IPv6 address from the VLAN", filter.SpoofedIP, s.packet(s.udp(own, stranger(true), 40000, unused)))
		probe := s.advert(netip.IPv6Unspecified(), own, s.mac)
		probe.Type, probe.Neighbour.Options = 135, nil
		s.add("duplicate address probe for a guest's from the VLAN", filter.SpoofedND, s.packet(probe))
	}
}

// router is the link-local address of somebody on the VLAN.
var router = netip.MustParseAddr("fe80::1")

// intrude are frames from the VLAN for VIPs and real servers that come from where they must not.
func (s *scene) intrude(p policy.Port) {
	for _, v6 := range []bool{false, true} {
		for _, vip := range s.vipsOf(v6) {
			if v6 {
				s.add("advertisement of a VIP from the VLAN", filter.VIPND, s.packet(s.advert(router, vip, s.mac)))
			} else {
				s.add("gratuitous ARP for a VIP from the VLAN", filter.VIPARP, s.announce(vip, vip))
			}
		}
		for _, service := range s.blade.Services {
			if p.Role != policy.RoleRealServer || s.segment.Role != policy.NetworkService || !has(service.Servers, p.Guest) {
				continue
			}
			for _, vip := range service.VIPs {
				if vip.Is6() == v6 {
					request := s.packet(s.tcp(stranger(v6), vip, 40000, service.Ports[0].First, policy.FlagSYN))
					request.Destination = p.MAC
					s.add("a request to a real server from no director", filter.VIPNotDR, request)
				}
			}
		}
		s.pose(v6, p)
	}
	if !s.other[true].IsValid() {
		return
	}
	s.add("IPv6 redirect from the VLAN", filter.BadND, s.packet(filter.IP{Source: s.other[true], Destination: allNodes, HopLimit: 255, Protocol: 58, Type: 137}))
	if !slices.ContainsFunc(s.segment.Routers, netip.Addr.Is6) {
		s.add("router advertisement where no router is", filter.RouterAdvert, s.packet(filter.IP{
			Source: router, Destination: allNodes, HopLimit: 255, Protocol: 58, Type: 134,
		}))
	}
}
