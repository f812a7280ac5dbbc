package alert

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// How alerts are paced: looked at once a second, told when they have lasted for a moment, bundled over the pause between two
// messages to one place. A place that fails is tried again later and later.
const (
	look       = time.Second
	lasting    = 2 * time.Second
	pause      = 10 * time.Second
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	timeout    = 10 * time.Second // for one message
	mostAlerts = 200              // in one message
)

// Sender tells what is wrong and what is not any more to webhooks, programs and mail servers.
type Sender struct {
	Blade   policy.BladeName
	Current func() []Alert // what is wrong now; State, Since and Text are the sender's
	Targets func() []policy.AlertTarget
	Client  *http.Client // for webhooks; nil: one that follows no redirect
	Log     *slog.Logger

	since  map[key]time.Time // of what is wrong now
	places map[string]*place // by their targets, written out
}

// place is one target and what it was told.
type place struct {
	target policy.AlertTarget
	told   map[key]Alert
	next   time.Time
	retry  time.Duration
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	if s.Client == nil {
		s.Client = newClient()
	}
	s.since, s.places = map[key]time.Time{}, map[string]*place{}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.round(ctx, now)
		}
	}
}

func newClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// round tells each place whose time has come what is new to it.
func (s *Sender) round(ctx context.Context, now time.Time) {
	current := s.lasting(now)
	places := map[string]*place{}
	var wg sync.WaitGroup
	for _, target := range s.Targets() {
		id := written(target)
		p := s.places[id]
		if p == nil {
			p = &place{target: target, told: map[key]Alert{}}
		}
		places[id] = p
		news := p.news(current)
		if len(news) == 0 || now.Before(p.next) {
			continue
		}
		wg.Go(func() { s.tell(ctx, p, news, now) })
	}
	s.places = places
	wg.Wait()
}

// lasting is what has been wrong for a moment, with its time.
func (s *Sender) lasting(now time.Time) map[key]Alert {
	out, since := map[key]Alert{}, map[key]time.Time{}
	for _, a := range s.Current() {
		k := a.key()
		begin, known := s.since[k]
		if !known {
			begin = now
		}
		since[k] = begin
		if now.Sub(begin) >= lasting {
			a.State, a.Since = Firing, begin
			out[k] = a
		}
	}
	s.since = since
	return out
}

// news is what the place does not know, sorted.
func (p *place) news(current map[key]Alert) []Alert {
	var out []Alert
	for k, a := range current {
		if _, known := p.told[k]; !known {
			out = append(out, a)
		}
	}
	for k, a := range p.told {
		if _, still := current[k]; !still {
			a.State = Resolved
			out = append(out, a)
		}
	}
	slices.SortFunc(out, compare)
	return out
}

// tell hands news over and remembers what was taken.
func (s *Sender) tell(ctx context.Context, p *place, news []Alert, now time.Time) {
	m := Message{Version: "v1", Blade: s.Blade, Time: now, Alerts: news}
	if m.Omitted = max(0, len(news)-mostAlerts); m.Omitted > 0 {
		m.Alerts = news[:mostAlerts]
	}
	for i := range m.Alerts {
		m.Alerts[i].Text = m.Alerts[i].String()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := s.deliver(ctx, p.target, m); err != nil {
		p.retry = min(max(2*p.retry, firstRetry), lastRetry)
		p.next = now.Add(p.retry)
		s.Log.Warn("alert", "to", name(p.target), "alerts", len(news), "err", err, "next_try", p.retry)
		return
	}
	p.retry, p.next = 0, now.Add(pause)
	for _, a := range news {
		if a.State == Resolved {
			delete(p.told, a.key())
		} else {
			p.told[a.key()] = a
		}
	}
}
