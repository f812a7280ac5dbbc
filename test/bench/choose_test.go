package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	for names, want := range map[string]string{
		"P1":       "P1",
		"R2,C1":    "C1 C2|R1 R2 R3",
		"C":        "C1 C2",
		"P3,P4,P3": "P3 P4",
	} {
		chosen, err := choose(benchmarks(), names)
		if err != nil {
			t.Errorf("%s: %v", names, err)
		}
		var got []string
		for _, b := range chosen {
			got = append(got, b.ids)
		}
		if diff := cmp.Diff(want, strings.Join(got, "|")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", names, diff)
		}
	}
	if all, err := choose(benchmarks(), ""); err != nil || len(all) != len(benchmarks()) {
		t.Errorf("no names choose %d, %v", len(all), err)
	}
	for _, names := range []string{"X1", "P1,", ",", "P1,Z"} {
		if _, err := choose(benchmarks(), names); err == nil {
			t.Errorf("%q is taken for rows", names)
		}
	}
}
