package hostagent

import (
	"errors"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

func TestHung(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	silent := func(questions int, seen time.Duration, change func(*conversation)) *conversation {
		c := &conversation{guest: director1(100), err: errors.New("timed out"), seen: start.Add(seen), silence: silence{questions: questions, began: start}}
		if change != nil {
			change(c)
		}
		return c
	}
	for _, c := range []struct {
		name    string
		d       *conversation
		phase   guests.Phase
		started time.Duration
		at      time.Duration
		want    bool
	}{
		{"long silent", silent(60, 0, nil), guests.Running, -time.Hour, 2 * time.Minute, true},
		{"not long enough", silent(60, time.Second, nil), guests.Running, -time.Hour, 2 * time.Minute, false},
		{"the agent was halted and has asked once", silent(1, 0, nil), guests.Running, -time.Hour, time.Hour, false},
		{"it answers", silent(0, 0, func(d *conversation) { d.err = nil }), guests.Running, -time.Hour, time.Hour, false},
		{"it boots", silent(60, 0, nil), guests.Running, 3 * time.Minute, 4 * time.Minute, false},
		{"it never answered", silent(60, -time.Hour, func(d *conversation) { d.seen = time.Time{} }), guests.Running, time.Second, 3 * time.Minute, true},
		{"suspended", silent(60, 0, nil), guests.Paused, -time.Hour, time.Hour, false},
		{"a restart did not help", silent(60, 0, func(d *conversation) { d.silence.restarts = 1 }), guests.Running, -time.Hour, 3 * time.Minute, false},
		{"a restart did not help for long", silent(60, 0, func(d *conversation) { d.silence.restarts = 1 }), guests.Running, -time.Hour, 4 * time.Minute, true},
		{"no restart helps", silent(60, 0, func(d *conversation) { d.silence.restarts = 60 }), guests.Running, -time.Hour, longestSilence, true},
	} {
		ds := &helpers{patience: 2 * time.Minute, each: map[policy.GuestName]*conversation{"d1": c.d}}
		have := []guests.Observed{
			{Spec: guests.Spec{Name: "d1", Driver: policy.DriverKVM}, Phase: c.phase, Since: start.Add(c.started)},
			{Spec: guests.Spec{Name: "www-1", Driver: policy.DriverLXC}, Phase: guests.Running},
		}
		got := ds.hung(have, start.Add(c.at))
		if _, hung := got["d1"]; hung != c.want || len(got) > 1 {
			t.Errorf("%s: %v, want d1 in it: %t", c.name, got, c.want)
		}
	}
}

// A director that was suspended for longer than the agent's patience is not stopped when it goes on.
func TestAResumedDirectorGetsItsTime(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &conversation{guest: director1(100), err: errors.New("timed out"), seen: start, silence: silence{questions: 60, began: start.Add(-time.Hour)}}
	ds := &helpers{patience: 2 * time.Minute, each: map[policy.GuestName]*conversation{"d1": c}}
	at := func(after time.Duration, phase guests.Phase) bool {
		o := guests.Observed{Spec: guests.Spec{Name: "d1", Driver: policy.DriverKVM}, Phase: phase, Since: start.Add(-time.Hour)}
		return len(ds.hung([]guests.Observed{o}, start.Add(after))) > 0
	}
	if at(time.Hour, guests.Paused) {
		t.Error("a suspended director is taken for hung")
	}
	c.silence.questions = hungQuestions
	if at(time.Hour+time.Minute, guests.Running) {
		t.Error("a director that goes on since a minute is taken for hung")
	}
	if !at(time.Hour+2*time.Minute, guests.Running) {
		t.Error("a director that goes on and stays silent is not taken for hung")
	}
}

func TestRestartsOfAHungDirectorLieFurtherApart(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &conversation{guest: director1(100), seen: start, silence: silence{questions: 60}}
	ds := &helpers{each: map[policy.GuestName]*conversation{"d1": c}}
	ds.restarted("d1", start.Add(2*time.Minute))
	ds.restarted("d1", start.Add(8*time.Minute))
	if c.silence.restarts != 2 || c.silence.questions != 0 {
		t.Fatalf("%+v, want two restarts and no question since", c.silence)
	}
	c.seen = start.Add(30 * time.Minute)
	ds.restarted("d1", start.Add(33*time.Minute))
	if c.silence.restarts != 1 {
		t.Errorf("%d restarts counted after it answered for a while, want 1", c.silence.restarts)
	}
	ds.restarted("gone", start)
}

// A director that falls silent is asked on, and the agent looks at it when it has been silent for long enough.
func TestASilentDirectorWakesTheAgent(t *testing.T) {
	d := &dialer{h: &helper{}}
	ds := conversations(t, d)
	ds.patience = 0
	woken := make(chan struct{}, 100)
	ds.wake = func() { woken <- struct{}{} }
	d.fail = func() error { return errors.New("no route to guest") }
	ds.each["d1"] = &conversation{guest: director1(100)}
	var client *channel.Client
	for range hungQuestions + 1 {
		client = ds.speak(t.Context(), ds.each["d1"], client)
	}
	if n := len(woken); n != 3 { // at the first silence, and hung at the fifth question and still at the sixth
		t.Errorf("woken %d times, want 3", n)
	}
	have := []guests.Observed{{Spec: guests.Spec{Name: "d1", Driver: policy.DriverKVM}, Phase: guests.Running}}
	if len(ds.hung(have, time.Now())) != 1 {
		t.Error("not hung")
	}
}
