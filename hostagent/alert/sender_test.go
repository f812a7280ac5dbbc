package alert

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

// board is what is wrong, and a webhook that hears of it.
type board struct {
	mu      sync.Mutex
	wrong   []Alert
	targets []policy.AlertTarget
	fails   bool
	heard   []Message
}

func (b *board) set(wrong ...Alert) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = wrong
}

func (b *board) current() []Alert {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wrong
}

// RoundTrip is the webhook.
func (b *board) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails {
		return nil, errors.New("connection refused")
	}
	var m Message
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		return nil, err
	}
	b.heard = append(b.heard, m)
	return &http.Response{StatusCode: http.StatusNoContent, Status: "204 No Content", Body: io.NopCloser(strings.NewReader(""))}, nil
}

// states are the alerts of each message: `firing www-1`.
func (b *board) states() [][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out [][]string
	for _, m := range b.heard {
		var list []string
		for _, a := range m.Alerts {
			list = append(list, string(a.State)+" "+string(a.RealServer))
		}
		out = append(out, list)
	}
	return out
}

func run(t *testing.T, test func(b *board)) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{targets: []policy.AlertTarget{{Webhook: "http://hook.example/"}}}
		ctx, cancel := context.WithCancel(t.Context())
		s := Sender{
			Blade: "lame-l1", Current: b.current, Client: &http.Client{Transport: b}, Log: slog.New(slog.DiscardHandler),
			Targets: func() []policy.AlertTarget { b.mu.Lock(); defer b.mu.Unlock(); return b.targets },
		}
		go s.Run(ctx)
		test(b)
		cancel()
		synctest.Wait()
	})
}

func down(server policy.GuestName) Alert {
	return Alert{
		Kind: ServerDown, Service: "www", VIPs: []netip.Addr{netip.MustParseAddr("203.0.113.10")}, RealServer: server, Site: "lombarderie",
		Director: "dir-pub-l", Reason: "connection refused",
	}
}

// TestTold: a storm is one message, an end is told too, and what lasts is told once.
func TestTold(t *testing.T) {
	run(t, func(b *board) {
		b.set(down("www-1"), down("www-2"))
		time.Sleep(time.Minute)
		b.set(down("www-2"))
		time.Sleep(time.Minute)
		want := [][]string{{"firing www-1", "firing www-2"}, {"resolved www-1"}}
		if diff := cmp.Diff(want, b.states()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		m := b.heard[0]
		const text = "www at 203.0.113.10: real server www-1 (lombarderie) is down for director dir-pub-l: connection refused, since "
		if m.Blade != "lame-l1" || m.Version != "v1" || !strings.HasPrefix(m.Alerts[0].Text, text) {
			t.Errorf("%+v, want the text %q", m, text)
		}
	})
}

// TestShortOnesAreNotTold: what is over before its moment is never heard of, and flapping is bundled.
func TestShortOnesAreNotTold(t *testing.T) {
	run(t, func(b *board) {
		b.set(down("www-1"))
		time.Sleep(lasting / 2)
		b.set()
		time.Sleep(time.Minute)
		for range 30 {
			b.set(down("www-1"))
			time.Sleep(3 * time.Second)
			b.set()
			time.Sleep(3 * time.Second)
		}
		if n := len(b.states()); n < 2 || n > 20 {
			t.Errorf("%d messages in three minutes of flapping", n)
		}
	})
}

// TestWebhookThatFails: nothing is lost while it is away, nothing is told twice, and what came and went meanwhile is not told.
func TestWebhookThatFails(t *testing.T) {
	run(t, func(b *board) {
		b.fails = true
		b.set(down("www-1"), down("www-2"))
		time.Sleep(10 * time.Minute)
		b.set(down("www-2"), down("www-3"))
		time.Sleep(time.Minute)
		b.mu.Lock()
		b.fails = false
		b.mu.Unlock()
		time.Sleep(2 * lastRetry)
		if diff := cmp.Diff([][]string{{"firing www-2", "firing www-3"}}, b.states()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestNewWebhookHearsAll: one that a policy adds hears what is wrong, one that it takes away hears nothing more.
func TestNewWebhookHearsAll(t *testing.T) {
	run(t, func(b *board) {
		b.set(down("www-1"))
		time.Sleep(time.Minute)
		b.mu.Lock()
		b.targets = []policy.AlertTarget{{Webhook: "http://other.example/"}}
		b.mu.Unlock()
		time.Sleep(time.Minute)
		if diff := cmp.Diff([][]string{{"firing www-1"}, {"firing www-1"}}, b.states()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestManyAreBounded: a message carries so many, and says how many more there are.
func TestManyAreBounded(t *testing.T) {
	run(t, func(b *board) {
		var many []Alert
		for i := range 3 * mostAlerts {
			many = append(many, Alert{Kind: Waiting, Object: "link " + string(rune('a'+i%26)) + strings.Repeat("x", i)})
		}
		b.set(many...)
		time.Sleep(time.Minute)
		if len(b.heard) != 1 || len(b.heard[0].Alerts) != mostAlerts || b.heard[0].Omitted != 2*mostAlerts {
			t.Errorf("%d messages, the first with %d alerts and %d omitted", len(b.heard), len(b.heard[0].Alerts), b.heard[0].Omitted)
		}
	})
}

// TestTexts: what a person reads of each kind.
func TestTexts(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	vips := []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:5::10")}
	for want, a := range map[string]Alert{
		"www at 203.0.113.10, 2001:db8:5::10: has lost its quorum at director d1 (tertre): 1 of 2 up, since 2026-03-01T12:00:00Z": {
			Kind: ServiceDown, Service: "www", VIPs: vips, Director: "d1", Site: "tertre", Reason: "1 of 2 up", Since: at,
		},
		"www at 203.0.113.10: real server www-1 (tertre) is well and not heard from the VIP by director d1: vip missing or filtered, since 2026-03-01T12:00:00Z": {
			Kind: VIPMissing, Service: "www", VIPs: vips[:1], RealServer: "www-1", Director: "d1", Site: "tertre", Reason: "vip missing or filtered", Since: at,
		},
		"director d1 (tertre): its probes through VIP 203.0.113.10, 2001:db8:5::10 are not answered: by nobody, since 2026-03-01T12:00:00Z": {
			Kind: VIPUnheard, VIPs: vips, Director: "d1", Site: "tertre", Reason: "by nobody", Since: at,
		},
		"over: VIP 203.0.113.10: withdrawn by director d1 (tertre): no quorum, since 2026-03-01T12:00:00Z": {
			State: Resolved, Kind: VIPWithdrawn, VIPs: vips[:1], Director: "d1", Site: "tertre", Reason: "no quorum", Since: at,
		},
		"director d1 (tertre): does not answer its blade: connection timed out, since 2026-03-01T12:00:00Z": {
			Kind: DirectorSilent, Director: "d1", Site: "tertre", Reason: "connection timed out", Since: at,
		},
		"guest www-1 (tertre): port www-1.0 loses packets to a limit: conn-limit, since 2026-03-01T12:00:00Z": {
			Kind: Limited, Guest: "www-1", Site: "tertre", Object: "port www-1.0", Reason: "conn-limit", Since: at,
		},
		"container www-1: waits: no image, since 2026-03-01T12:00:00Z": {Kind: Waiting, Object: "container www-1", Reason: "no image", Since: at},
	} {
		if got := a.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
