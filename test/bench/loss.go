package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
	"github.com/bladenet/bladenet/test/bench/result"
)

// replacements is how often R5 replaces the whole ruleset under load.
const replacements = 60

// loss is R5: packets that a policy in force throughout must let through, while the whole ruleset is replaced again and again.
func loss(ctx context.Context, _ options) ([]result.Row, error) {
	s, err := newStation(reference)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := s.protect(ctx); err != nil {
		return nil, err
	}
	rules, note, err := usable(ctx, s.kernel, filter.Compile(s.blade))
	if err != nil {
		return nil, err
	}
	steps, err := nft.Plan(rules, nft.State{})
	if err != nil {
		return nil, err
	}
	open, err := s.passage(legIn, packets{})
	if err != nil {
		return nil, err
	}
	closed, err := s.passage(legIn, packets{unlisted: true})
	if err != nil {
		return nil, err
	}
	var done atomic.Bool
	replaced := make(chan error, 1)
	go func() {
		defer done.Store(true)
		replaced <- s.replaceOften(ctx, steps)
	}()
	sent, arrived, leaked := 0, 0, 0
	for !done.Load() {
		const burst = 64_000
		_, n, err := open.Send(burst)
		if err != nil {
			return nil, err
		}
		_, wrong, err := closed.Send(burst)
		if err != nil {
			return nil, err
		}
		sent, arrived, leaked = sent+burst, arrived+n, leaked+wrong
	}
	if err := <-replaced; err != nil {
		return nil, err
	}
	note = fmt.Sprintf("%d packets of each kind, %d replacements; %s", sent, replacements, note)
	return []result.Row{
		result.Count("R5", "packets lost while the whole ruleset is replaced", "", "packets", float64(sent-arrived), 0).Judged(result.AtMost, 0).Noted(note),
		result.Count("R5.leak", "packets of no service let through meanwhile", "", "packets", float64(leaked), 0).Judged(result.AtMost, 0).Noted(note),
	}, nil
}

func (s *station) replaceOften(ctx context.Context, steps []nft.Step) error {
	for range replacements {
		if err := s.kernel.Apply(ctx, steps); err != nil {
			return err
		}
	}
	return nil
}
