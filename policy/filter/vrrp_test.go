package filter_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// pairFleet is two directors of a pair, on two blades, and a third one beside them.
const pairFleet = `zones: [z]
sites: [s]
networks:
  up: {zone: z, role: uplink, vlan: 10, subnets: [192.0.2.0/26, "2001:db8:111::/64"], routers: [192.0.2.1, "2001:db8:111::1"]}
  in: {zone: z, role: service, vlan: 20, subnets: [10.12.0.0/22, "2001:db8:120::/64"]}
  back: {zone: z, role: return, vlan: 30, subnets: [198.51.100.0/25, "2001:db8:130::/64"], routers: [198.51.100.1, "2001:db8:130::1"]}
blades:
  b1: {site: s, zone: z, trunk: eno1}
  b2: {site: s, zone: z, trunk: eno1}
services:
  www: {zone: z, vips: [192.0.2.10, "2001:db8:111::10"], ports: [80/tcp]}
directors:
  d1: {blade: b1, eth0: {network: up, addresses: [192.0.2.2, "2001:db8:111::2"]}, eth1: {network: in, addresses: [10.12.0.2, "2001:db8:120::2"]}, announce: {vrrp: {id: 41, priority: 200}}}
  d2: {blade: b2, eth0: {network: up, addresses: [192.0.2.3, "2001:db8:111::3"]}, eth1: {network: in, addresses: [10.12.0.3, "2001:db8:120::3"]}, announce: {vrrp: {id: 41, priority: 100}}}
  d3: {blade: b1, eth0: {network: up, addresses: [192.0.2.4, "2001:db8:111::4"]}, eth1: {network: in, addresses: [10.12.0.4, "2001:db8:120::4"]}, announce: none}
realservers:
  r1: {blade: b1, image: web, serves: {www: {}}, eth0: {network: back, addresses: [198.51.100.11, "2001:db8:130::11"]}, eth1: {network: in, addresses: [10.12.1.11, "2001:db8:120::11"]}}
`

func pairBlade(t *testing.T) policy.Blade {
	t.Helper()
	f, diagnostics := policy.Load([]policy.File{{Name: "fleet.yaml", Data: []byte(pairFleet)}})
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	b, err := policy.Derive(f, "b1")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAPairIsHeard holds what must pass between a pair, its VIPs' neighbours and its routers: Judge and the rules let it.
func TestAPairIsHeard(t *testing.T) {
	b := pairBlade(t)
	m := newMachine(filter.Compile(b).Tables[0])
	d1, d2, router := policy.MACOf("d1", "eth0"), policy.MACOf("d2", "eth0"), filtertest.RouterMAC
	port, third, link := policy.PortName("d1", "eth0"), policy.PortName("d3", "eth0"), "vlan10"
	vip4, vip6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:111::10")
	router4, router6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:111::1")
	all, group4, group6 := policy.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, policy.MAC{1, 0, 0x5e, 0, 0, 0x12}, policy.MAC{0x33, 0x33, 0, 0, 0, 0x12}

	arp := func(in, out string, from, to policy.MAC, operation uint16, sender, target netip.Addr) filter.Packet {
		return filter.Packet{In: in, Out: out, Source: from, Destination: to, EtherType: 0x0806, ARP: &filter.ARP{Operation: operation, SenderMAC: from, Sender: sender, Target: target}}
	}
	nd := func(in, out string, from, to policy.MAC, kind uint8, source, destination, target netip.Addr) filter.Packet {
		return filter.Packet{In: in, Out: out, Source: from, Destination: to, EtherType: 0x86dd, State: filter.Invalid, IP: &filter.IP{
			Source: source, Destination: destination, HopLimit: 255, Protocol: 58, Type: kind,
			Neighbour: &filter.Neighbour{Target: target, Options: []filter.NeighbourOption{{Type: kind - 134, Value: from}}},
		}}
	}
	vrrp := func(in, out string, from, to policy.MAC, source, group string) filter.Packet {
		p := filter.Packet{In: in, Out: out, Source: from, Destination: to, EtherType: 0x0800, IP: &filter.IP{
			Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(group), HopLimit: 255, Protocol: 112, Type: 0x31, Code: 51,
		}}
		if p.IP.Source.Is6() {
			p.IP.Code, p.EtherType = 57, 0x86dd // ::10 is the byte 0x10
		}
		return p
	}
	solicited, solicitedMAC := filter.SolicitedNode(vip6)
	nodes, nodesMAC := netip.MustParseAddr("ff02::1"), policy.MAC{0x33, 0x33, 0, 0, 0, 1}
	for name, c := range map[string]struct {
		packet filter.Packet
		passes bool
	}{
		"gratuitous ARP":                     {arp(port, link, d1, all, 1, vip4, vip4), true},
		"gratuitous ARP of the other":        {arp(link, port, d2, all, 1, vip4, vip4), true},
		"ARP request":                        {arp(link, port, router, all, 1, router4, vip4), true},
		"ARP request to one":                 {arp(link, port, router, d1, 1, router4, vip4), true},
		"ARP reply":                          {arp(port, link, d1, router, 2, vip4, router4), true},
		"ARP of the third":                   {arp(third, link, policy.MACOf("d3", "eth0"), all, 1, vip4, vip4), false},
		"unsolicited advertisement":          {nd(port, link, d1, nodesMAC, 136, vip6, nodes, vip6), true},
		"unsolicited one of the other":       {nd(link, port, d2, nodesMAC, 136, vip6, nodes, vip6), true},
		"solicitation":                       {nd(link, port, router, solicitedMAC, 135, router6, solicited, vip6), true},
		"solicitation to the VIP":            {nd(link, port, router, d1, 135, router6, vip6, vip6), true},
		"solicitation to it from a link":     {nd(link, port, router, d1, 135, policy.LinkLocal(router), vip6, vip6), true},
		"solicitation to it at the third":    {nd(link, third, router, policy.MACOf("d3", "eth0"), 135, router6, vip6, vip6), false},
		"advertisement from the VIP":         {nd(port, link, d1, router, 136, vip6, router6, vip6), true},
		"advertisement from its own address": {nd(port, link, d1, router, 136, netip.MustParseAddr("2001:db8:111::2"), router6, vip6), true},
		"advertisement of the third":         {nd(third, link, policy.MACOf("d3", "eth0"), router, 136, vip6, router6, vip6), false},
		"VRRP":                               {vrrp(port, link, d1, group4, "192.0.2.2", "224.0.0.18"), true},
		"VRRP of the other":                  {vrrp(link, port, d2, group4, "192.0.2.3", "224.0.0.18"), true},
		"VRRP over IPv6":                     {vrrp(port, link, d1, group6, policy.LinkLocal(d1).String(), "ff02::12"), true},
		"VRRP of the other over IPv6":        {vrrp(link, port, d2, group6, policy.LinkLocal(d2).String(), "ff02::12"), true},
		"VRRP of the other to the third":     {vrrp(link, third, d2, group4, "192.0.2.3", "224.0.0.18"), false},
		"VRRP of a router":                   {vrrp(link, port, router, group4, "192.0.2.1", "224.0.0.18"), false},
		"VRRP of a router to the third":      {vrrp(link, third, router, group4, "192.0.2.1", "224.0.0.18"), true},
	} {
		passed, reason := pass(m, c.packet, "br10")
		if v := filter.Judge(b, c.packet); v.Accept != c.passes || passed != c.passes || string(v.Reason) != reason {
			t.Errorf("%s: Judge lets it pass: %t (%s, %s); rules: %t (%s); want %t", name, v.Accept, v.Reason, v.Rule, passed, reason, c.passes)
		}
	}
}

// TestAPairCostsElements holds that a pair adds elements to sets and no rule.
func TestAPairCostsElements(t *testing.T) {
	rules := func(b policy.Blade) (out []string) {
		for _, c := range filter.Compile(b).Tables[0].Chains {
			for _, r := range c.Rules {
				out = append(out, c.Name+": "+r.String())
			}
		}
		return out
	}
	b := pairBlade(t)
	alone := b
	alone.Peers = slices.Clone(b.Peers)
	for i := range alone.Peers {
		alone.Peers[i].VRRP = nil
	}
	if with, without := rules(b), rules(alone); !slices.Equal(with, without) {
		t.Errorf("%d rules with a pair, %d without", len(with), len(without))
	}
}
