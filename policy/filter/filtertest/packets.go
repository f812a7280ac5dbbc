package filtertest

import (
	"math/rand/v2"
	"net/netip"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// Source draws packets on the bridges of one blade.
type Source struct {
	rand  *rand.Rand
	blade policy.Blade
	pool  pool
}

// New makes a source of packets for a blade.
func New(b policy.Blade, seed uint64) *Source {
	return &Source{rand: rand.New(rand.NewPCG(seed, 1)), blade: b, pool: newPool(b)}
}

// Stranger names a port of the bridge that no policy names.
func Stranger(bridge string) string { return bridge + "x" }

// Ports lists the ports of a bridge: the VLAN link, the guests' and a stranger's.
func Ports(b policy.Blade, s policy.Segment) []string {
	out := []string{s.Link}
	for _, p := range guestPorts(b, s) {
		out = append(out, p.Name)
	}
	return append(out, Stranger(s.Bridge))
}

func guestPorts(b policy.Blade, s policy.Segment) []policy.Port {
	var out []policy.Port
	for _, g := range b.Guests {
		for _, p := range g.Ports {
			if p.Network == s.Network {
				out = append(out, p)
			}
		}
	}
	return out
}

// pool is what fields are drawn from: the addresses, MACs and ports that the policy speaks of, and some that it does not.
type pool struct {
	v4, v6 []netip.Addr
	macs   []policy.MAC
	ports  []uint16
}

// RouterMAC is of no guest; a bridge floods what goes to it.
var RouterMAC = policy.MAC{0x02, 0, 0x5e, 0, 0, 1}

var (
	broadcast = policy.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	users     = []string{"198.18.0.7", "203.0.113.130", "203.0.113.241", "203.0.113.225", "2001:db8:c0::7", "2001:db8:c::9", "2001:db8:ad::5", "2001:db8:5e::25"}
	odd       = []string{
		"0.0.0.0", "224.0.0.5", "224.0.0.6", "224.0.0.18", "224.0.0.81", "255.255.255.255", "203.0.113.226", "::", "ff02::1", "ff02::5", "ff02::6", "ff02::12",
		"fe80::1", "fe80::5eff:fe00:1",
	}
)

func newPool(b policy.Blade) pool {
	p := pool{macs: []policy.MAC{RouterMAC, broadcast, {0x33, 0x33, 0, 0, 0, 1}, {0x02, 1, 2, 3, 4, 5}}, ports: []uint16{22, 67, 547, 179, 3784, 4784, 8848, 161, 9100, 123, 53, 12345}}
	add := func(list ...netip.Addr) {
		for _, a := range list {
			if a.Is4() {
				p.v4 = append(p.v4, a)
			} else {
				p.v6 = append(p.v6, a)
			}
		}
	}
	for _, s := range append(append([]string{}, users...), odd...) {
		add(netip.MustParseAddr(s))
	}
	for _, s := range b.Services {
		add(s.VIPs...)
		for _, r := range s.Ports {
			p.ports = append(p.ports, r.First, r.Last)
		}
	}
	for _, s := range b.Segments {
		add(s.Routers...)
	}
	for _, peer := range b.Peers {
		p.macs = append(p.macs, peer.MAC)
		add(peer.Addresses...)
		add(policy.LinkLocal(peer.MAC))
	}
	return p
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func (s *Source) one(n int) bool { return s.rand.IntN(n) == 0 }

// Next draws a frame that enters one of the blade's bridges, and the segment that the bridge belongs to. Out is left empty: the
// bridge decides.
func (s *Source) Next() (filter.Packet, policy.Segment) {
	segment := pick(s.rand, s.blade.Segments)
	draws := []func(policy.Segment) filter.Packet{
		s.request, s.request, s.direct, s.answer, s.answer, s.plain, s.plain, s.plain, s.check, s.probe, s.probe, s.routing, s.sync, s.pair, s.pair, s.arp, s.arp,
		s.neighbour, s.neighbour,
		s.icmpError, s.oddICMP, s.oddFrame, s.dhcp, s.impostor,
	}
	p := pick(s.rand, draws)(segment)
	for s.one(3) {
		s.spoil(&p, segment)
	}
	s.fit(&p)
	return p, segment
}

// fit makes the drawn packet one that can be sent, and says what conntrack will call it.
func (s *Source) fit(p *filter.Packet) {
	for p.Source[0]&1 != 0 {
		p.Source = pick(s.rand, s.pool.macs) // a bridge takes nothing from a group
	}
	ip := p.IP
	if ip == nil {
		return
	}
	if ip.Source.Is4() != ip.Destination.Is4() {
		if ip.Source.Is4() {
			ip.Destination = pick(s.rand, s.pool.v4)
		} else {
			ip.Destination = pick(s.rand, s.pool.v6)
		}
	}
	if ip.Source.Is6() && p.EtherType == 0x0800 || ip.Source.Is4() && p.EtherType == 0x86dd {
		p.EtherType ^= 0x0800 ^ 0x86dd
	}
	s.fitICMP(ip)
	if ip.Piece != filter.Whole && !s.vip(ip.Source) && !s.vip(ip.Destination) {
		ip.Piece = filter.Whole // conntrack waits for the rest of it, so that nothing passes whatever the verdict
	}
	p.State = State(*ip)
}

func (s *Source) fitICMP(ip *filter.IP) {
	v6 := ip.Source.Is6()
	if v6 && ip.Protocol == 1 {
		ip.Protocol = 58
	}
	if !v6 && ip.Protocol == 58 {
		ip.Protocol = 1
	}
	nd := ip.Protocol == 58 && (ip.Type == 135 || ip.Type == 136)
	if nd && ip.Neighbour == nil {
		ip.Neighbour = &filter.Neighbour{Target: pick(s.rand, s.pool.v6)}
	}
	if !nd {
		ip.Neighbour = nil
	}
	icmp := ip.Protocol == 58 || ip.Protocol == 1
	if !icmp || ip.Quoted != nil && ip.Quoted.Source.Is4() == v6 {
		ip.Quoted = nil
	}
	if !icmp && ip.Protocol != 112 {
		ip.Type, ip.Code = 0, 0
	}
}

func (s *Source) vip(a netip.Addr) bool {
	for _, service := range s.blade.Services {
		for _, v := range service.VIPs {
			if v == a {
				return true
			}
		}
	}
	return false
}

// State is what conntrack calls a packet of which it has seen nothing before (net/netfilter/nf_conntrack_proto_*.c).
func State(ip filter.IP) filter.ConnTrack {
	switch ip.Protocol {
	case 6:
		switch ip.Flags &^ (policy.FlagPSH | policy.FlagURG) {
		case policy.FlagSYN, policy.FlagACK:
			return filter.New
		}
		return filter.Invalid
	case 132:
		return filter.Invalid // its chunk is no INIT
	case 1:
		if ip.Type != 8 && ip.Type != 13 && ip.Type != 15 && ip.Type != 17 {
			return filter.Invalid
		}
	case 58:
		if ip.Type != 128 && (ip.Type < 130 || ip.Type > 137) && ip.Type != 143 {
			return filter.Invalid
		}
	}
	return filter.New
}
