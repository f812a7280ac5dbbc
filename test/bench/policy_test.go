package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFleetSeries(t *testing.T) {
	const out = `goos: linux
BenchmarkFleet-2   	       1	500000000 ns/op	   6.10 MB/s	104857600 B/op	  123456 allocs/op
BenchmarkFleet-2   	       1	600000000 ns/op	209715200 B/op	  123456 allocs/op
BenchmarkDerive-2  	       1	700000000 ns/op	209715200 B/op	  123456 allocs/op
PASS
`
	took, held, err := fleetSeries([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float64{{500, 600}, {100, 200}}, [][]float64{took, held}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
