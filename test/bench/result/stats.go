package result

import (
	"fmt"
	"math"
	"slices"
)

// Subject is one of several things that are measured beside each other.
type Subject struct {
	Name    string
	Measure func() (float64, error)
}

// Interleave measures every subject once a round, each round beginning with another, so that a slow moment of the machine meets
// all of them alike. It returns a series for each subject's name, in the order of the rounds. A first round warms up and
// is thrown away.
func Interleave(rounds int, subjects ...Subject) (map[string][]float64, error) {
	series := map[string][]float64{}
	for round := range rounds + 1 {
		for i := range subjects {
			s := subjects[(i+round)%len(subjects)]
			v, err := s.Measure()
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", s.Name, err)
			}
			if round > 0 {
				series[s.Name] = append(series[s.Name], v)
			}
		}
	}
	return series, nil
}

// Spread is the median of a series and the quartiles around it.
type Spread struct{ Median, P25, P75 float64 }

// SpreadOf sorts a copy of the series. Between two samples it interpolates linearly. Of nothing it is NaN.
func SpreadOf(series []float64) Spread {
	sorted := slices.Sorted(slices.Values(series))
	return Spread{Median: quantile(sorted, 0.5), P25: quantile(sorted, 0.25), P75: quantile(sorted, 0.75)}
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// Ratios divides two series round by round. It panics if they are not of one length: then they are not of the same rounds.
func Ratios(ours, peer []float64) []float64 {
	if len(ours) != len(peer) {
		panic(fmt.Sprintf("result: series of %d and %d rounds", len(ours), len(peer)))
	}
	out := make([]float64, len(ours))
	for i := range ours {
		out[i] = ours[i] / peer[i]
	}
	return out
}
