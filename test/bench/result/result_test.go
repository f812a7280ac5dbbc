package result

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/test/golden"
)

func TestSpreadOf(t *testing.T) {
	for _, c := range []struct {
		series []float64
		want   Spread
	}{
		{[]float64{7}, Spread{7, 7, 7}},
		{[]float64{3, 1, 2}, Spread{2, 1.5, 2.5}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1.75, 3.25}},
		{[]float64{9, 1, 1, 1, 1}, Spread{1, 1, 1}},
	} {
		before := append([]float64{}, c.series...)
		if diff := cmp.Diff(c.want, SpreadOf(c.series)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.series, diff)
		}
		if diff := cmp.Diff(before, c.series); diff != "" {
			t.Errorf("the series was changed:\n%s", diff)
		}
	}
	if s := SpreadOf(nil); !math.IsNaN(s.Median) {
		t.Errorf("the median of nothing is %v", s.Median)
	}
}

// TestCompareIsByRound holds that ratios are of the same round: a slow moment that meets both cancels out.
func TestCompareIsByRound(t *testing.T) {
	r := Compare("X", "", "", "ns", []float64{20, 200, 2000}, []float64{10, 100, 1000})
	if r.Ratio != 2 || r.P25 != 2 || r.P75 != 2 {
		t.Errorf("ratio %v [%v..%v], want 2", r.Ratio, r.P25, r.P75)
	}
	if r.Ours != 200 || r.Peer != 100 || r.Rounds != 3 {
		t.Errorf("ours %v, peer %v, %d rounds", r.Ours, r.Peer, r.Rounds)
	}
	defer func() {
		if recover() == nil {
			t.Error("series of different rounds were compared")
		}
	}()
	Ratios([]float64{1}, []float64{1, 2})
}

func TestJudged(t *testing.T) {
	for _, c := range []struct {
		ratio  float64
		bound  Bound
		target float64
		want   bool
	}{
		{1.6, AtMost, 1.6, true},
		{1.61, AtMost, 1.6, false},
		{0, AtMost, 0, true},
		{1, AtMost, 0, false},
		{0.8, AtLeast, 0.78, true},
		{0.7, AtLeast, 0.78, false},
		{math.NaN(), AtMost, 1, false},
		{math.NaN(), AtLeast, 1, false},
	} {
		if got := (Row{Ratio: c.ratio}).Judged(c.bound, c.target); *got.Met != c.want || *got.Target != c.target {
			t.Errorf("%v %s %v: met %v, target %v", c.ratio, c.bound, c.target, *got.Met, *got.Target)
		}
	}
}

func TestInterleaveRotates(t *testing.T) {
	var order strings.Builder
	subject := func(name string) Subject {
		return Subject{name, func() (float64, error) {
			order.WriteString(name)
			return float64(order.Len()), nil
		}}
	}
	series, err := Interleave(2, subject("a"), subject("b"), subject("c"))
	if err != nil {
		t.Fatal(err)
	}
	if got := order.String(); got != "abc"+"bca"+"cab" {
		t.Errorf("measured in the order %s", got)
	}
	want := map[string][]float64{"a": {6, 8}, "b": {4, 9}, "c": {5, 7}}
	if diff := cmp.Diff(want, series); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	broken := errors.New("broken")
	if _, err := Interleave(2, subject("a"), Subject{"b", func() (float64, error) { return 0, broken }}); !errors.Is(err, broken) {
		t.Errorf("a measurement's error became %v", err)
	}
}

func report() Report {
	return Report{
		When:    time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		Machine: Machine{CPU: "a processor", CPUs: 2, Kernel: "6.18", Go: "go1.26"},
		Lab:     &Machine{CPU: "an emulated one", CPUs: 2, Kernel: "6.1", Go: "go1.26"},
		Rows: []Row{
			Compare("P1.in", "packet", "no filter", "ns", []float64{1500, 1600, 1700}, []float64{1000, 1000, 1000}).Judged(AtMost, 1.6),
			Compare("P6", "throughput", "no filter", "Gbit/s", []float64{7}, []float64{10}).Judged(AtLeast, 0.78).Noted("why"),
			Compare("P1.hop", "packet", "", "ns", []float64{math.NaN()}, []float64{1}),
			Count("C1", "entries", "a stateful filter", "entries", 0, 1000).Judged(AtMost, 0),
		},
	}
}

func TestRender(t *testing.T) {
	var out bytes.Buffer
	if err := Render(&out, report()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "report.txt", out.Bytes())
}

func TestMarkdown(t *testing.T) {
	var out bytes.Buffer
	if err := Markdown(&out, report()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "report.md", out.Bytes())
}

// TestEncode holds the keys that readers of the report rely on, and that a figure that is none stays readable.
func TestEncode(t *testing.T) {
	var out bytes.Buffer
	if err := Encode(&out, report()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "report.json", out.Bytes())
	var back struct{ Rows []map[string]any }
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	for _, row := range back.Rows {
		for _, key := range []string{"id", "ratio", "p25", "p75", "target", "met", "ours", "peer"} {
			if _, ok := row[key]; !ok {
				t.Errorf("row %v has no %s", row["id"], key)
			}
		}
	}
}
