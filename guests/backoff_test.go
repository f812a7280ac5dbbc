package guests

import (
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

func TestBackoff(t *testing.T) {
	var b Backoff
	s := step(Spec{Name: "www-1", Driver: policy.DriverLXC}, plan.Start, nil, "")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	wait := func() time.Duration {
		held := map[policy.GuestName]Hold{}
		b.Hold(held, now)
		h, ok := held["www-1"]
		if !ok {
			return 0
		}
		return h.Until.Sub(now)
	}
	if got := wait(); got != 0 {
		t.Errorf("before any start: %v", got)
	}
	for i, want := range []time.Duration{
		0, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 64 * time.Second,
		128 * time.Second, 256 * time.Second, 5 * time.Minute, 5 * time.Minute,
	} {
		b.Record(s, now)
		if got := wait(); got != want {
			t.Errorf("after %d starts: %v, want %v", i+1, got, want)
		}
		now = now.Add(want)
		if got := wait(); got != 0 {
			t.Errorf("after waiting: %v", got)
		}
	}
	now = now.Add(stable + time.Second)
	b.Record(s, now)
	if got := wait(); got != 0 {
		t.Errorf("after a long life: %v", got)
	}
	b.Record(s, now)
	b.Record(step(s.Spec, plan.Update, nil, ""), now)
	if got := wait(); got != 0 {
		t.Errorf("after an update: %v", got)
	}
	b.Record(s, now)
	b.Record(s, now)
	held := map[policy.GuestName]Hold{"www-1": {Off: true}}
	b.Hold(held, now)
	if !held["www-1"].Off {
		t.Error("an operator's hold was replaced")
	}
}
