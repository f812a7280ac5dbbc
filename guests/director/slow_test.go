package director

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

func TestSlowly(t *testing.T) {
	v := policy.VirtualService{SlowStart: 20 * time.Second}
	began := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		after time.Duration
		whole int
		back  bool
		want  int
	}{
		{0, 100, true, 10},
		{1999 * time.Millisecond, 100, true, 10},
		{2 * time.Second, 100, true, 20},
		{19 * time.Second, 100, true, 100},
		{20 * time.Second, 100, true, 100},
		{-time.Hour, 100, true, 10},
		{0, 3, true, 1},
		{0, 0, true, 0},
		{0, 100, false, 100},
	} {
		got, reason := slowly(v, health.Result{Back: c.back, Since: began}, c.whole, began.Add(c.after))
		if got != c.want || (reason != "") != (c.back && c.after < v.SlowStart && c.whole > 0) {
			t.Errorf("%s after it came back, of %d, back %v: %d (%s), want %d", c.after, c.whole, c.back, got, reason, c.want)
		}
	}
}

// TestSlowStart holds that a server that comes back grows into its weight, and that one which was never away does not.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		a := state("one")
		a.Balancer.Services[0].SlowStart = 20 * time.Second
		apply(t, c, a)
		time.Sleep(3 * time.Second)
		wantHistory(t, w, append([]string{
			"+ director create service www 203.0.113.10:80/tcp scheduler wlc",
			"+ director create server a 10.0.0.1:80 of 203.0.113.10:80/tcp weight 0 (not checked yet)",
			"+ director create server b 10.0.0.2:80 of 203.0.113.10:80/tcp weight 0 (not checked yet)",
		}, raise1, raise2, announceA)...)
		w.set("a", true)
		time.Sleep(3 * time.Second)
		wantHistory(t, w, lower1)
		w.set("a", false)
		var seen []int
		for range 30 {
			time.Sleep(time.Second)
			synctest.Wait()
			if now := weights(w)["10.0.0.1"]; len(seen) == 0 || seen[len(seen)-1] != now {
				seen = append(seen, now)
			}
		}
		if got, want := fmt.Sprint(seen), "[0 10 20 30 40 50 60 70 80 90 100]"; got != want {
			t.Errorf("weights %s, want %s", got, want)
		}
		if n := len(w.happened()); n != 10 {
			t.Errorf("%d changes, want ten", n)
		}
	})
}

// TestAScriptsWeight holds that what a check says goes to the kernel while it says it, also 0, which takes the server out of the quorum.
func TestAScriptsWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := running(t, w)
		say := func(id string, a health.Answer) {
			w.mu.Lock()
			w.answer[id] = a
			w.mu.Unlock()
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
		}
		for _, want := range []int{7, 0, 253} {
			say("a", health.Answer{Weighs: true, Weight: want})
			if got := weights(w); got["10.0.0.1"] != want || got["10.0.0.2"] != 100 {
				t.Errorf("weights %v, want %d and 100", got, want)
			}
		}
		say("a", health.Answer{})
		if got := weights(w)["10.0.0.1"]; got != 100 {
			t.Errorf("weight %d once it says nothing, want the policy's 100", got)
		}
		say("a", health.Answer{Weighs: true})
		say("b", health.Answer{Weighs: true})
		if s, err := c.Status(t.Context(), channel.Query{}); err != nil || s.VIPs[0].Up {
			t.Errorf("status %+v, %v: both servers want weight 0", s, err)
		}
	})
}

func TestAScriptsWeightKeepsTheShare(t *testing.T) {
	h := known("l", "r")
	for id, weight := range map[string]int{"l": 40, "r": 253} {
		r := h[id]
		r.Answer = health.Answer{Weighs: true, Weight: weight}
		h[id] = r
	}
	v := policy.VirtualService{Mode: "locality", Quorum: 1, Destinations: []policy.Destination{dest("l", 100, 0), dest("r", 1, 100)}}
	if s := decideHeard(v, h, Memory{}); s.Weights[0] != 40 || s.Weights[1] != 3 {
		t.Errorf("weights %v, want 40 and 1%% of 253", s.Weights)
	}
	delete(h, "l")
	if s := decideHeard(v, h, Memory{}); s.Weights[1] != 253 {
		t.Errorf("weights %v, want all of 253", s.Weights)
	}
}
