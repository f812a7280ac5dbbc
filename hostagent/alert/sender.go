package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// How alerts are paced: looked at once a second, told when they have lasted for a moment, bundled over the pause between two
// messages to one webhook. A webhook that fails is asked again later and later.
const (
	look       = time.Second
	lasting    = 2 * time.Second
	pause      = 10 * time.Second
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	timeout    = 5 * time.Second
	mostAlerts = 200 // in one message
)

// Sender posts to webhooks what is wrong and what is not any more.
type Sender struct {
	Blade    policy.BladeName
	Current  func() []Alert  // what is wrong now; State, Since and Text are the sender's
	Webhooks func() []string // URLs
	Client   *http.Client    // nil: one that follows no redirect
	Log      *slog.Logger

	since map[key]time.Time // of what is wrong now
	hooks map[string]*hook
}

// hook is one webhook and what it was told.
type hook struct {
	url   string
	told  map[key]Alert
	next  time.Time
	retry time.Duration
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	if s.Client == nil {
		s.Client = &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	s.since, s.hooks = map[key]time.Time{}, map[string]*hook{}
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

// round tells each webhook whose time has come what is new to it.
func (s *Sender) round(ctx context.Context, now time.Time) {
	current := s.lasting(now)
	urls := s.Webhooks()
	for url := range s.hooks {
		if !slices.Contains(urls, url) {
			delete(s.hooks, url)
		}
	}
	var wg sync.WaitGroup
	for _, url := range urls {
		h := s.hooks[url]
		if h == nil {
			h = &hook{url: url, told: map[key]Alert{}}
			s.hooks[url] = h
		}
		news := h.news(current)
		if len(news) == 0 || now.Before(h.next) {
			continue
		}
		wg.Go(func() { s.tell(ctx, h, news, now) })
	}
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

// news is what the webhook does not know, sorted.
func (h *hook) news(current map[key]Alert) []Alert {
	var out []Alert
	for k, a := range current {
		if _, known := h.told[k]; !known {
			out = append(out, a)
		}
	}
	for k, a := range h.told {
		if _, still := current[k]; !still {
			a.State = Resolved
			out = append(out, a)
		}
	}
	slices.SortFunc(out, compare)
	return out
}

// tell posts news and remembers what was taken.
func (s *Sender) tell(ctx context.Context, h *hook, news []Alert, now time.Time) {
	m := Message{Version: "v1", Blade: s.Blade, Time: now, Alerts: news}
	if m.Omitted = max(0, len(news)-mostAlerts); m.Omitted > 0 {
		m.Alerts = news[:mostAlerts]
	}
	for i := range m.Alerts {
		m.Alerts[i].Text = m.Alerts[i].String()
	}
	if err := s.post(ctx, h.url, m); err != nil {
		h.retry = min(max(2*h.retry, firstRetry), lastRetry)
		h.next = now.Add(h.retry)
		s.Log.Warn("alert", "webhook", h.url, "alerts", len(news), "err", err, "next_try", h.retry)
		return
	}
	h.retry, h.next = 0, now.Add(pause)
	for _, a := range news {
		if a.State == Resolved {
			delete(h.told, a.key())
		} else {
			h.told[a.key()] = a
		}
	}
}

func (s *Sender) post(ctx context.Context, url string, m Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode alert: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "bladed")
	resp, err := s.Client.Do(r)
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("post alert to %s: %s", url, resp.Status)
	}
	return nil
}
