package filter_test

import (
	"net/netip"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// TestAProbeThroughTheVIPPasses follows a director's probe by each real server over every bridge on its way, there and back: the rules and
// Judge let it pass, and what resets the connection too.
func TestAProbeThroughTheVIPPasses(t *testing.T) {
	blades := nantes(t)
	machines := map[policy.BladeName]*machine{}
	for name, b := range blades {
		machines[name] = newMachine(filter.Compile(b).Tables[0])
	}
	hop := func(blade policy.BladeName, p filter.Packet, in, out policy.Peer) {
		t.Helper()
		b := blades[blade]
		end := func(x policy.Peer) string {
			if x.Blade == blade {
				return policy.PortName(x.Guest, x.Interface)
			}
			for _, s := range b.Segments {
				if s.Network == x.Network {
					return s.Link
				}
			}
			return ""
		}
		p.In, p.Out = end(in), end(out)
		if v := filter.Judge(b, p); !v.Accept {
			t.Errorf("%s: Judge drops it for %s (%s): %s", blade, v.Reason, v.Rule, describe(p))
		}
		for _, s := range b.Segments {
			if s.Network != in.Network {
				continue
			}
			if ok, reason := pass(machines[blade], p, s.Bridge); !ok {
				t.Errorf("%s: the rules drop it for %s: %s", blade, reason, describe(p))
			}
		}
	}
	probes := 0
	eachProbe(blades, func(x probe) {
		probes++
		request := func(flags policy.TCPFlags) filter.Packet {
			return x.packet(x.director[1].MAC, x.server[1].MAC, filter.IP{
				Source: x.from, Destination: x.vip, Protocol: 6, SourcePort: 40000, DestinationPort: x.port, Flags: flags, HopLimit: 64,
			})
		}
		answer := func(source, destination policy.MAC, flags policy.TCPFlags) filter.Packet {
			return x.packet(source, destination, filter.IP{
				Source: x.vip, Destination: x.from, Protocol: 6, SourcePort: x.port, DestinationPort: 40000, Flags: flags, HopLimit: 62,
			})
		}
		elsewhere := policy.Peer{Network: x.server[0].Network} // the router, behind the VLAN
		for _, flags := range []policy.TCPFlags{policy.FlagSYN, policy.FlagRST} {
			hop(x.director[1].Blade, request(flags), x.director[1], x.server[1])
			if x.server[1].Blade != x.director[1].Blade {
				hop(x.server[1].Blade, request(flags), x.director[1], x.server[1])
			}
		}
		for _, flags := range []policy.TCPFlags{policy.FlagSYN | policy.FlagACK, policy.FlagRST | policy.FlagACK} {
			hop(x.server[0].Blade, answer(x.server[0].MAC, filtertest.RouterMAC, flags), x.server[0], elsewhere)
			elsewhere.Network = x.director[0].Network
			hop(x.director[0].Blade, answer(filtertest.RouterMAC, x.director[0].MAC, flags), elsewhere, x.director[0])
			elsewhere.Network = x.server[0].Network
		}
	})
	if probes < 10 {
		t.Errorf("only %d probes to follow", probes)
	}
}

// probe is what one is made of: eth0 and eth1 of both ends, and the service's VIP and port.
type probe struct {
	director, server [2]policy.Peer
	from             netip.Addr
	vip              netip.Addr
	port             uint16
}

func (x probe) packet(source, destination policy.MAC, ip filter.IP) filter.Packet {
	etherType := uint16(0x0800)
	if x.vip.Is6() {
		etherType = 0x86dd
	}
	return filter.Packet{Source: source, Destination: destination, EtherType: etherType, IP: &ip}
}

// eachProbe calls do for each director, each TCP port of each VIP of its zone and each real server of that.
func eachProbe(blades map[policy.BladeName]policy.Blade, do func(probe)) {
	for _, b := range blades {
		peers := map[policy.GuestName][2]policy.Peer{}
		for _, p := range b.Peers {
			both := peers[p.Guest]
			both[p.Interface[len("eth")]-'0'] = p
			peers[p.Guest] = both
		}
		for _, g := range b.Guests {
			if g.Balancer == nil {
				continue
			}
			for _, v := range g.Balancer.Services {
				for _, d := range v.Destinations {
					for _, from := range g.Ports[0].Addresses {
						if v.Protocol == policy.TCP && from.Is4() == v.VIP.Is4() {
							do(probe{peers[g.Name], peers[d.Guest], from, v.VIP, v.Port})
						}
					}
				}
			}
		}
	}
}
