package main

import (
	"context"
	"fmt"

	"github.com/bladenet/bladenet/test/bench/fleet"
	"github.com/bladenet/bladenet/test/bench/result"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// reference is the size that most rows are measured at.
var reference = fleet.Size{Services: 1000, Guests: 64}

// sampleTime is how long one sample of packets should last.
const sampleTime = 40e6 // nanoseconds

// sample finds out how many packets last long enough, and measures so many each time.
func sample(name string, p traffic.Passage) (result.Subject, error) {
	const probe = 6400
	ns, err := p.Cost(probe)
	if err != nil {
		return result.Subject{}, fmt.Errorf("%s: %w", name, err)
	}
	n := max(probe, int(sampleTime/max(ns, 1))/64*64)
	return result.Subject{Name: name, Measure: func() (float64, error) { return p.Cost(n) }}, nil
}

// packetCost is P1: what the product's ruleset adds to a bridge without a filter, on every leg and in both families, and what the
// least of rulesets adds.
func packetCost(ctx context.Context, o options) ([]result.Row, error) {
	var stations []*station
	for range 3 {
		s, err := newStation(reference)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		stations = append(stations, s)
	}
	ours, plain, least := stations[0], stations[1], stations[2]
	note, err := ours.protect(ctx)
	if err != nil {
		return nil, err
	}
	if err := least.loadLeast(); err != nil {
		return nil, err
	}
	var rows []result.Row
	for _, c := range []struct {
		leg    leg
		target float64
	}{{legIn, 1.60}, {legOut, 1.80}} {
		series, err := o.compare(c.leg, packets{}, ours, plain, least)
		if err != nil {
			return rows, err
		}
		id, what := "P1."+c.leg.name, "packet "+c.leg.what
		rows = append(
			rows,
			result.Compare(id, what, noFilter, "ns", series[0], series[1]).Judged(result.AtMost, c.target).Noted(note),
			result.Compare(id+".least", what+", least ruleset", noFilter, "ns", series[2], series[1]),
		)
	}
	for _, c := range []struct {
		leg leg
		v6  bool
	}{{legHop, false}, {legServer, false}, {legIn, true}, {legHop, true}, {legServer, true}, {legOut, true}} {
		series, err := o.compare(c.leg, packets{v6: c.v6}, ours, plain)
		if err != nil {
			return rows, err
		}
		id, what := "P1."+c.leg.name, "packet "+c.leg.what
		if c.v6 {
			id, what = id+"6", what+", IPv6"
		}
		rows = append(rows, result.Compare(id, what, noFilter, "ns", series[0], series[1]))
	}
	return rows, nil
}

const noFilter = "same bridge, no filter"

// compare sends the same packets through several stations in turn and returns the series of each.
func (o options) compare(l leg, what packets, stations ...*station) ([][]float64, error) {
	var subjects []result.Subject
	for i, s := range stations {
		p, err := s.passage(l, what)
		if err != nil {
			return nil, err
		}
		subject, err := sample(fmt.Sprint(i), p)
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, subject)
	}
	series, err := result.Interleave(o.rounds, subjects...)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, len(stations))
	for i, s := range subjects {
		out[i] = series[s.Name]
	}
	return out, nil
}

// packetGrowth is P2: the same at other sizes.
func packetGrowth(ctx context.Context, o options) ([]result.Row, error) {
	var rows []result.Row
	for _, c := range []struct {
		id, what, peer string
		big, small     fleet.Size
		target         float64
	}{
		{"P2.services", "packet to a director, 10 000 services", "10 services", fleet.Size{Services: 10_000, Guests: 64, IPv4Only: true}, fleet.Size{Services: 10, Guests: 64, IPv4Only: true}, 1.10},
		{"P2.guests", "packet to a director, 256 guests", "2 guests", fleet.Size{Services: 1000, Guests: 256}, fleet.Size{Services: 1000, Guests: 2}, 1.05},
	} {
		row, err := compareSizes(ctx, o, c.big, c.small)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.id, err)
		}
		row.ID, row.What, row.PeerIs = c.id, c.what, c.peer
		rows = append(rows, row.Judged(result.AtMost, c.target))
	}
	return rows, nil
}

func compareSizes(ctx context.Context, o options, big, small fleet.Size) (result.Row, error) {
	var stations []*station
	for _, size := range []fleet.Size{big, small} {
		s, err := newStation(size)
		if err != nil {
			return result.Row{}, err
		}
		defer s.Close()
		if _, err := s.protect(ctx); err != nil {
			return result.Row{}, err
		}
		stations = append(stations, s)
	}
	series, err := o.compare(legIn, packets{}, stations...)
	if err != nil {
		return result.Row{}, err
	}
	return result.Compare("", "", "", "ns", series[0], series[1]), nil
}
