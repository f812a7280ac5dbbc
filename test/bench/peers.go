package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/fleet"
	"github.com/bladenet/bladenet/test/bench/peer"
	"github.com/bladenet/bladenet/test/bench/result"
)

// guarded lists the blade's guests by one interface each, those whose traffic is measured in the middle: a list costs what
// stands before.
func guarded(b policy.Blade, measured ...string) []peer.Guarded {
	var out, middle []peer.Guarded
	for _, g := range b.Guests {
		p := g.Ports[0]
		x := peer.Guarded{Port: p.Name, MAC: p.MAC, Own: p.Addresses}
		for _, s := range b.Services {
			if g.Role != policy.RoleDirector && !slices.Contains(s.Servers, g.Name) {
				continue
			}
			x.Open = append(x.Open, opened(s)...)
		}
		if slices.Contains(measured, p.Name) {
			middle = append(middle, x)
		} else {
			out = append(out, x)
		}
	}
	return slices.Insert(out, len(out)/2, middle...)
}

func opened(s policy.Service) []peer.Opened {
	var out []peer.Opened
	for _, v := range s.VIPs {
		if !v.Is4() {
			continue
		}
		o := peer.Opened{VIP: v}
		for _, r := range s.Ports {
			for n := int(r.First); n <= int(r.Last); n++ {
				o.Ports = append(o.Ports, uint16(n))
			}
		}
		out = append(out, o)
	}
	return out
}

func vips4(b policy.Blade) []netip.Addr {
	var out []netip.Addr
	for _, s := range b.Services {
		for _, v := range s.VIPs {
			if v.Is4() {
				out = append(out, v)
			}
		}
	}
	return out
}

// linear guards a station by iptables behind br_netfilter.
func (s *station) linear() error {
	if err := s.loadLinear(); err != nil {
		return err
	}
	return s.refuses(legIn, false)
}

func (s *station) loadLinear() error {
	if err := s.ns.CallIPTables(true); err != nil {
		return err
	}
	rules := peer.IPTables(vips4(s.blade), guarded(s.blade, legIn.to, legOut.from))
	_, err := s.ns.Run(rules, "iptables-legacy-restore")
	return err
}

// hashed guards a station by iptables and ipset behind br_netfilter.
func (s *station) hashed() error {
	if err := s.ns.CallIPTables(true); err != nil {
		return err
	}
	sets, rules := peer.IPSets(vips4(s.blade), guarded(s.blade, legIn.to, legOut.from))
	if _, err := s.ns.Run(sets, "ipset", "restore"); err != nil {
		return err
	}
	if _, err := s.ns.Run(rules, "iptables-legacy-restore"); err != nil {
		return err
	}
	return s.refuses(legIn, false)
}

// spoofGuarded guards a station as libvirt does: who may speak, and nothing else. The guest that is measured has one VIP.
func (s *station) spoofGuarded() error {
	guests := guarded(s.blade, legOut.from)
	for i := range guests {
		guests[i].Open = guests[i].Open[:min(1, len(guests[i].Open))]
	}
	_, err := s.ns.Run(peer.NWFilter(guests), "ebtables-nft-restore")
	return err
}

// lists is P3 and P4.
func lists(ctx context.Context, o options) ([]result.Row, error) {
	var rows []result.Row
	for _, c := range []struct {
		id, peer string
		size     fleet.Size
		guard    func(*station) error
		target   float64
	}{
		{"P3", "br_netfilter, iptables raw NOTRACK, physdev", reference, (*station).linear, 0.16},
		{"P3.10000", "same", fleet.Size{Services: 10_000, Guests: 64, IPv4Only: true}, (*station).linear, 0.04},
		{"P4", "br_netfilter, ipset, NOTRACK, physdev", reference, (*station).hashed, 0.35},
	} {
		row, err := beside(ctx, o, c.size, legIn, packets{}, c.guard)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.id, err)
		}
		row.ID, row.What, row.PeerIs = c.id, fmt.Sprintf("packet to a director, %d services, 64 guests", c.size.Services), c.peer
		rows = append(rows, row.Judged(result.AtMost, c.target))
	}
	return rows, nil
}

// antiSpoof is P5.
func antiSpoof(ctx context.Context, o options) ([]result.Row, error) {
	var rows []result.Row
	for _, c := range []struct {
		guests int
		target float64
	}{{64, 0.27}, {256, 0.09}} {
		row, err := beside(ctx, o, fleet.Size{Services: 1000, Guests: c.guests}, legOut, packets{vips: 1}, (*station).spoofGuarded)
		if err != nil {
			return rows, fmt.Errorf("%d guests: %w", c.guests, err)
		}
		row.ID, row.What = fmt.Sprintf("P5.%d", c.guests), fmt.Sprintf("packet from a server, whole policy, %d guests", c.guests)
		row.PeerIs = "libvirt nwfilter clean-traffic, anti-spoof only"
		rows = append(rows, row.Judged(result.AtMost, c.target))
	}
	return rows, nil
}

// beside measures the product's ruleset and another on bridges of the same blade.
func beside(ctx context.Context, o options, size fleet.Size, l leg, what packets, guard func(*station) error) (result.Row, error) {
	ours, err := newStation(size)
	if err != nil {
		return result.Row{}, err
	}
	defer ours.Close()
	if _, err := ours.protect(ctx); err != nil {
		return result.Row{}, err
	}
	theirs, err := newStation(size)
	if err != nil {
		return result.Row{}, err
	}
	defer theirs.Close()
	if err := guard(theirs); err != nil {
		return result.Row{}, err
	}
	series, err := o.compare(l, what, ours, theirs)
	if err != nil {
		return result.Row{}, err
	}
	return result.Compare("", "", "", "ns", series[0], series[1]), nil
}
