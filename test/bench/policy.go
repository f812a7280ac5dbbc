package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/bladenet/bladenet/test/bench/result"
)

var benchmarkLine = regexp.MustCompile(`(?m)^BenchmarkFleet\S*\s+\d+\s+(\d+) ns/op.*?\s(\d+) B/op`)

// wholeFleet is Y1: the policy of 1 000 blades, 10 000 real servers and 2 000 services from its files to one derived blade, as the
// policy's own benchmark does it.
func wholeFleet(ctx context.Context, o options) ([]result.Row, error) {
	c := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkFleet$", "-benchtime", "1x", "-count", fmt.Sprint(o.rounds), "./policy")
	out, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run the policy's benchmark: %w: %s", err, out)
	}
	took, held, err := fleetSeries(out)
	if err != nil || len(took) != o.rounds {
		return nil, fmt.Errorf("read the policy's benchmark: %d of %d rounds: %w", len(took), o.rounds, err)
	}
	row := func(id, what, unit string, series []float64, most float64) result.Row {
		s := result.SpreadOf(series)
		return result.Row{
			ID: id, What: what, Ratio: s.Median, P25: s.P25, P75: s.P75, Ours: s.Median, Unit: unit, Rounds: len(series),
		}.Judged(result.AtMost, most)
	}
	return []result.Row{
		row("Y1", "policy of 1 000 blades, from files to a derived blade", "ms", took, 1000),
		row("Y1.memory", "the same, allocated", "MB", held, 500),
	}, nil
}

// fleetSeries reads milliseconds and megabytes out of what go test prints.
func fleetSeries(out []byte) (took, held []float64, err error) {
	for _, m := range benchmarkLine.FindAllSubmatch(out, -1) {
		ns, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, nil, err
		}
		bytes, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return nil, nil, err
		}
		took, held = append(took, ns/1e6), append(held, bytes/(1<<20))
	}
	return took, held, nil
}
