package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/peer"
	"github.com/bladenet/bladenet/test/bench/result"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// table is V1: an IPVS table of 1000 services with ten real servers each, from nothing.
func table(ctx context.Context, o options) ([]result.Row, error) {
	ns, err := traffic.NewNamespace()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	// Without any local address the kernel takes every server's for a broadcast.
	if err := ns.Own("lo", netip.AddrFrom4([4]byte{192, 0, 2, 1})); err != nil {
		return nil, err
	}
	services, weights, restore := virtualServices(1000, 10)
	want, err := ipvs.Wanted(services, weights, nil)
	if err != nil {
		return nil, err
	}
	k := ipvs.Open(ns.Path())
	defer k.Close()
	steps := ipvs.Plan(want, ipvs.Table{})
	empty := func() error {
		_, err := ns.Run("", "ipvsadm", "-C")
		return err
	}
	fresh := func(name string, do func() error) result.Subject {
		subject := timed(name, do)
		return result.Subject{Name: name, Measure: func() (float64, error) {
			if err := empty(); err != nil {
				return 0, err
			}
			return subject.Measure()
		}}
	}
	series, err := result.Interleave(
		o.rounds,
		fresh("ours", func() error { return k.Apply(ctx, steps) }),
		fresh("ipvsadm", func() error {
			_, err := ns.Run(restore, "ipvsadm", "-R")
			return err
		}),
		fresh("library", func() error { return peer.Balance(ns.Path(), services) }),
	)
	if err != nil {
		return nil, err
	}
	if err := empty(); err != nil {
		return nil, err
	}
	if err := k.Apply(ctx, steps); err != nil {
		return nil, err
	}
	have, err := k.Observe(ctx)
	if err != nil {
		return nil, err
	}
	if left := ipvs.Plan(want, have); len(left) > 0 {
		return nil, fmt.Errorf("read the table back: %d steps are left", len(left))
	}
	what := "IPVS table of 1000 services x 10 servers from empty"
	return []result.Row{
		result.Compare("V1", what, "ipvsadm -R", "ms", series["ours"], series["ipvsadm"]).Judged(result.AtMost, 0.45),
		result.Compare("V1.library", what, "moby/ipvs", "ms", series["ours"], series["library"]).Judged(result.AtMost, 0.75),
	}, nil
}

// virtualServices writes services with servers, all of weight 1, and the same for ipvsadm -R.
func virtualServices(services, servers int) (out []policy.VirtualService, weights [][]int, restore string) {
	var b strings.Builder
	for i := range services {
		v := policy.VirtualService{
			Service: policy.ServiceName(fmt.Sprintf("svc-%d", i)), VIP: netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}),
			Protocol: policy.TCP, Port: 80, Scheduler: "wlc",
		}
		fmt.Fprintf(&b, "-A -t %s:80 -s wlc\n", v.VIP)
		for j := range servers {
			d := policy.Destination{Address: netip.AddrFrom4([4]byte{10, 2, 0, byte(j + 1)}), Port: 80, Weight: 1}
			v.Destinations = append(v.Destinations, d)
			fmt.Fprintf(&b, "-a -t %s:80 -r %s:80 -g -w 1\n", v.VIP, d.Address)
		}
		out = append(out, v)
		weights = append(weights, slices.Repeat([]int{1}, servers))
	}
	return out, weights, b.String()
}
