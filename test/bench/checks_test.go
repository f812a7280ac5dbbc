package main

import (
	"testing"
	"time"
)

func TestPunctuality(t *testing.T) {
	at := func(ms ...int) (out []time.Time) {
		for _, x := range ms {
			out = append(out, time.Unix(0, 0).Add(time.Duration(x)*time.Millisecond))
		}
		return out
	}
	p := judgePunctuality([][]time.Time{at(100, 1100, 2150, 3150), at(70, 1070, 2080), nil}, time.Second)
	if p.Probes != 7 || p.Worst != 0.05 || p.Late50 != 0 {
		t.Errorf("%+v", p)
	}
	if p := judgePunctuality(nil, time.Second); p.Probes != 0 || p.Worst != 0 {
		t.Errorf("of nothing: %+v", p)
	}
}
