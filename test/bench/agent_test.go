package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMetricSeries(t *testing.T) {
	const out = `goos: linux
BenchmarkIdlePass-2   	       5	 500885466 ns/op	         0.1388 %core-idle	       769.9 apply-ms	       44.50 rss-MiB
--- BENCH: BenchmarkIdlePass-2
BenchmarkIdlePass-2   	       5	 400885466 ns/op	         0.09 %core-idle	       1e+03 apply-ms	       45 rss-MiB
`
	for name, want := range map[string][]float64{"%core-idle": {0.1388, 0.09}, "apply-ms": {769.9, 1000}, "rss-MiB": {44.5, 45}, "nosuch": nil} {
		got, err := metricSeries([]byte(out), name)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
}
