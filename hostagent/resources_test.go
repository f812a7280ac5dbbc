package hostagent

import (
	"runtime"
	"testing"

	"github.com/bladenet/bladenet/policy"
)

func TestGiven(t *testing.T) {
	got, err := given([]policy.Guest{{Memory: 1 << 50, CPUs: 1}, {Memory: 1 << 30, CPUs: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Memory != 1<<50+1<<30 || got.CPUs != 1<<20+1 || got.CPUsHere != runtime.NumCPU() || got.MemoryHere < 1<<26 {
		t.Errorf("%+v", got)
	}
	if over := got.Over(); len(over) != 2 {
		t.Errorf("over: %q, want memory and processors", over)
	}
	got.Memory, got.CPUs = got.MemoryHere, got.CPUsHere
	if over := got.Over(); len(over) != 0 {
		t.Errorf("over: %q, though all fits", over)
	}
}
