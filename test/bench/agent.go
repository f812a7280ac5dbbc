package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/bladenet/bladenet/test/bench/result"
)

// idleAgent is A1 to A4: what the agent costs on a blade with 256 guests and 1 000 services, as its own benchmark does it.
func idleAgent(ctx context.Context, o options) ([]result.Row, error) {
	c := exec.CommandContext(ctx, "go", "test", "-tags", "kernel", "-run", "^$", "-bench", "^BenchmarkIdlePass$", "-benchtime", "3x", "-count", fmt.Sprint(o.rounds), "./hostagent")
	out, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run the agent's benchmark: %w: %s", err, out)
	}
	row := func(id, what, metric, unit string, most float64) (result.Row, error) {
		series, err := metricSeries(out, metric)
		if err != nil || len(series) != o.rounds {
			return result.Row{}, fmt.Errorf("read %s of the agent's benchmark: %d of %d rounds: %w", metric, len(series), o.rounds, err)
		}
		s := result.SpreadOf(series)
		return result.Row{
			ID: id, What: what, Ratio: s.Median, P25: s.P25, P75: s.P75, Ours: s.Median, Unit: unit, Rounds: len(series),
		}.Judged(result.AtMost, most).Noted("guests are noted, not run"), nil
	}
	var rows []result.Row
	for _, r := range []struct {
		id, what, metric, unit string
		most                   float64
	}{
		{"A1", "bladed with 256 guests and 1 000 services, nothing to do, share of a processor", "%core-idle", "%", 0.1},
		{"A2", "the same, resident", "rss-MiB", "MiB", 64},
		{"A3", "the same, everything observed and planned", "look-ms", "ms", 150},
		{"A4", "the same, an apply that changes nothing", "apply-ms", "ms", 200},
	} {
		one, err := row(r.id, r.what, r.metric, r.unit, r.most)
		if err != nil {
			return nil, err
		}
		rows = append(rows, one)
	}
	return rows, nil
}

// metricSeries reads what a benchmark of package testing reports under a name, one value a round.
func metricSeries(out []byte, name string) (series []float64, err error) {
	for _, m := range regexp.MustCompile(`(?m)^Benchmark.*?\s([0-9.e+]+) `+regexp.QuoteMeta(name)+`(?:\s|$)`).FindAllSubmatch(out, -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, err
		}
		series = append(series, v)
	}
	return series, nil
}
