package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bladenet/bladenet/test/bench/result"
)

// throughput is P6: what one TCP connection carries through two veth pairs, in full segments and in many small ones.
func throughput(ctx context.Context, o options) ([]result.Row, error) {
	guards := []struct {
		name  string
		guard func(*circuit) error
	}{
		{"plain", func(*circuit) error { return nil }},
		{"ours", func(c *circuit) error {
			_, err := c.load(ctx)
			return err
		}},
		{"iptables", func(c *circuit) error { return c.loadLinear() }},
	}
	var rows []result.Row
	for _, c := range []struct {
		id, what     string
		offload      bool
		segment      int
		plain, lists float64
	}{
		{"P6.small", "TCP, MSS 536, no offloads", false, 536, 0.78, 3},
		{"P6.big", "TCP, segmentation and receive offloads", true, 0, 0.90, 1.2},
	} {
		var subjects []result.Subject
		for _, g := range guards {
			subject, closing, err := transferring(ctx, g.name, g.guard, c.offload, c.segment)
			if err != nil {
				return rows, fmt.Errorf("%s: %w", g.name, err)
			}
			defer closing()
			subjects = append(subjects, subject)
		}
		series, err := result.Interleave(o.rounds, subjects...)
		if err != nil {
			return rows, err
		}
		rows = append(
			rows,
			result.Compare(c.id, c.what, "no filter", "Gbit/s", series["ours"], series["plain"]).Judged(result.AtLeast, c.plain),
			result.Compare(c.id+".iptables", c.what, "br_netfilter, iptables raw NOTRACK, physdev", "Gbit/s", series["ours"], series["iptables"]).Judged(result.AtLeast, c.lists),
		)
	}
	return rows, nil
}

// transferring makes a circuit under a guard and what measures it.
func transferring(ctx context.Context, name string, guard func(*circuit) error, offload bool, segment int) (result.Subject, func(), error) {
	c, err := newCircuit(reference, false)
	if err != nil {
		return result.Subject{}, nil, err
	}
	err = guard(c)
	if err == nil {
		err = c.offload(offload)
	}
	if err != nil {
		c.Close()
		return result.Subject{}, nil, err
	}
	l, err := c.listen(c.service())
	if err != nil {
		c.Close()
		return result.Subject{}, nil, err
	}
	c.close = append(c.close, l.Close)
	measure := func() (float64, error) { return c.transfer(ctx, l, segment, 300*time.Millisecond) }
	return result.Subject{Name: name, Measure: measure}, c.Close, nil
}
