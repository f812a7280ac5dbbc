package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/test/bench/result"
)

// benchmark measures rows that belong together.
type benchmark struct {
	ids     string // separated by spaces
	lab     bool   // needs a blade's kernel: connection tracking on bridges, IPVS
	measure func(context.Context, options) ([]result.Row, error)
}

func benchmarks() []benchmark {
	return []benchmark{
		{ids: "P1", measure: packetCost},
		{ids: "P2", measure: packetGrowth},
		{ids: "P3 P4", measure: lists},
		{ids: "P5", measure: antiSpoof},
		{ids: "P6", measure: throughput},
		{ids: "P7", lab: true, measure: untracked},
		{ids: "C1 C2", lab: true, measure: directReturn},
		{ids: "R1 R2 R3", measure: replacement},
		{ids: "R4", measure: change},
		{ids: "R5", measure: loss},
		{ids: "R6", measure: load},
		{ids: "N1 N2", measure: guestPorts},
		{ids: "S1", lab: true, measure: oneServer},
		{ids: "S2", lab: true, measure: manyServers},
		{ids: "S3", lab: true, measure: oneDirector},
		{ids: "V1", lab: true, measure: table},
		{ids: "D1", lab: true, measure: detection},
		{ids: "D2", measure: manyChecks},
		{ids: "Y1", measure: wholeFleet},
		{ids: "A1 A2 A3 A4", measure: idleAgent},
	}
}

// is says whether one of the benchmark's rows has that id, or an id that begins so.
func (b benchmark) is(id string) bool {
	return slices.ContainsFunc(strings.Fields(b.ids), func(own string) bool { return strings.HasPrefix(own, id) })
}

// choose keeps the benchmarks that measure one of the rows named. A name that fits none is an error.
func choose(all []benchmark, names string) ([]benchmark, error) {
	if names == "" {
		return all, nil
	}
	list := strings.Split(names, ",")
	for _, n := range list {
		if n == "" || !slices.ContainsFunc(all, func(b benchmark) bool { return b.is(n) }) {
			return nil, fmt.Errorf("choose rows: no row %q", n)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(b benchmark) bool { return !slices.ContainsFunc(list, b.is) }), nil
}
