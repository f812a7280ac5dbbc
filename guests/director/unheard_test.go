package director

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/guests/director/reach"
	"github.com/bladenet/bladenet/policy"
)

func key(guest string, port uint16) reach.Key {
	return reach.Key{Guest: policy.GuestName(guest), VIP: netip.AddrPortFrom(addr(vipA), port)}
}

func at(site string, d policy.Destination) policy.Destination {
	d.Site = policy.SiteName(site)
	return d
}

func changed(f map[reach.Key]reach.Finding, k reach.Key, do func(*reach.Finding)) map[reach.Key]reach.Finding {
	x := f[k]
	do(&x)
	f[k] = x
	return f
}

func TestWhatSilenceMeans(t *testing.T) {
	web := policy.VirtualService{Service: "web", VIP: addr(vipA), Protocol: policy.TCP, Port: 443, Destinations: []policy.Destination{
		at("l", dest("a", 100, 0)), at("l", dest("b", 100, 0)), at("c", dest("c", 100, 0)),
	}}
	quic := web
	quic.Protocol = policy.UDP
	other := web
	other.Port = 80
	udp := policy.VirtualService{Service: "log", VIP: addr("203.0.113.11"), Protocol: policy.UDP, Port: 514, Destinations: web.Destinations}
	b := policy.Balancer{Services: []policy.VirtualService{web, quic, other, udp}}
	hop := func(v policy.VirtualService, guest policy.GuestName) Hop { return Hop{KeyOf(v), guest} }
	silentAt := time.Unix(1000, 0)
	findings := func(silent []reach.Key, heard ...reach.Key) map[reach.Key]reach.Finding {
		out := map[reach.Key]reach.Finding{}
		for _, k := range silent {
			out[k] = reach.Finding{State: health.Down, Since: silentAt, Missed: silentAt.Add(10 * time.Second)}
		}
		for _, k := range heard {
			out[k] = reach.Finding{State: health.Up, Since: silentAt.Add(-time.Hour), Heard: silentAt.Add(5 * time.Second)}
		}
		return out
	}
	for name, c := range map[string]struct {
		findings map[reach.Key]reach.Finding
		passed   time.Duration // after the silence began
		want     Unheard
	}{
		"nothing known": {nil, time.Second, nil},
		"all heard":     {findings(nil, key("a", 443), key("b", 443), key("c", 443)), time.Second, nil},
		"one is silent, its neighbour heard": {
			findings([]reach.Key{key("a", 443)}, key("b", 443)), time.Second,
			Unheard{hop(web, "a"): true, hop(quic, "a"): true},
		},
		"its check has not asked again": {findings([]reach.Key{key("a", 443)}, key("b", 443)), -time.Second, Unheard{}},
		"nobody of its site is heard": {
			findings([]reach.Key{key("a", 443), key("b", 443)}, key("c", 443)), time.Second,
			Unheard{hop(web, "a"): false, hop(web, "b"): false, hop(quic, "a"): false, hop(quic, "b"): false},
		},
		"alone at its site": {
			findings([]reach.Key{key("c", 443)}, key("a", 443), key("b", 443)), time.Second,
			Unheard{hop(web, "c"): false, hop(quic, "c"): false},
		},
		"another port of its VIP is heard": {
			findings([]reach.Key{key("a", 443)}, key("a", 80), key("b", 443)), time.Second,
			Unheard{hop(web, "a"): true}, // and not the UDP one
		},
		"all ports of one": {
			findings([]reach.Key{key("a", 443), key("a", 80)}, key("b", 80)), time.Second,
			Unheard{hop(web, "a"): false, hop(other, "a"): true, hop(quic, "a"): true},
		},
		"its neighbour was not asked since": {
			changed(findings([]reach.Key{key("a", 443)}, key("b", 443)), key("b", 443), func(f *reach.Finding) { f.Heard = silentAt.Add(-time.Second) }), time.Second,
			Unheard{hop(web, "a"): false, hop(quic, "a"): false},
		},
		"its neighbour is just heard again": {
			changed(findings([]reach.Key{key("a", 443)}, key("b", 443)), key("b", 443), func(f *reach.Finding) { f.Since = silentAt.Add(11 * time.Second) }), time.Second,
			Unheard{hop(web, "a"): false, hop(quic, "a"): false},
		},
	} {
		got := unheardOf(b, c.findings, func(string) time.Time { return silentAt.Add(c.passed) })
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestWhoIsNotHeardIsTakenOut(t *testing.T) {
	sorry := policy.Destination{Guest: "s", Weight: 100, Sorry: true}
	for name, c := range map[string]struct {
		mode    string
		quorum  int
		dests   []policy.Destination
		health  Health
		missing []string
		kept    []string
		weights []int
		reasons []string
		answers bool
		short   bool
	}{
		"one of two":                       {"spread", 1, []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("a", "b"), []string{"a"}, nil, []int{0, 50}, []string{vipMissing, ""}, true, false},
		"never all":                        {"spread", 1, []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("a", "b"), []string{"a", "b"}, nil, []int{100, 50}, []string{vipUnheard, vipUnheard}, true, false},
		"the last by its check":            {"spread", 1, []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("a", "!b"), []string{"a"}, nil, []int{100, 0}, []string{vipUnheard, "down: refused"}, true, false},
		"not for the sorry server":         {"spread", 1, []policy.Destination{dest("a", 100, 0), sorry}, known("a"), []string{"a"}, nil, []int{100, 0}, []string{vipUnheard, "sorry server; others are up"}, true, false},
		"kept":                             {"spread", 1, []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("a", "b"), nil, []string{"a", "b"}, []int{100, 50}, []string{vipUnheard, vipUnheard}, true, false},
		"the quorum stays":                 {"spread", 2, []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("a", "b"), []string{"a"}, nil, []int{0, 50}, []string{vipMissing, ""}, true, true},
		"a spare is called":                {"spread", 2, []policy.Destination{dest("a", 100, 0), dest("b", 50, 0), spareDest("x")}, known("a", "b", "x"), []string{"a"}, nil, []int{0, 50, 30}, []string{vipMissing, "", ""}, true, true},
		"others when no local one is left": {"locality", 1, []policy.Destination{dest("l", 100, 0), dest("r", 0, 100)}, known("l", "r"), []string{"l"}, nil, []int{0, 100}, []string{vipMissing, "no local server is up"}, true, false},
		"drained":                          {"spread", 1, []policy.Destination{drainedDest("a"), dest("b", 50, 0)}, known("a", "b"), []string{"a"}, nil, []int{0, 50}, []string{"drained", ""}, true, false},
	} {
		v := policy.VirtualService{Mode: c.mode, Quorum: c.quorum, Destinations: c.dests}
		unheard := Unheard{}
		for _, g := range c.missing {
			unheard[Hop{KeyOf(v), policy.GuestName(g)}] = true
		}
		for _, g := range c.kept {
			unheard[Hop{KeyOf(v), policy.GuestName(g)}] = false
		}
		s := decideHeard(v, c.health, Memory{Unheard: unheard})
		if diff := cmp.Diff(c.weights, s.Weights); diff != "" {
			t.Errorf("%s: weights (-want +got)\n%s", name, diff)
		}
		if diff := cmp.Diff(c.reasons, s.Reasons); diff != "" {
			t.Errorf("%s: reasons (-want +got)\n%s", name, diff)
		}
		if s.Answers != c.answers || s.Short != c.short {
			t.Errorf("%s: answers %v, short %v", name, s.Answers, s.Short)
		}
	}
}

// TestAServerWithoutItsVIPLeavesAndComesBack follows a controller: who is probed, what its table and its status say of a server whose check passes
// and whose VIP is gone, and that its check's own failure is what is said of one that is down.
func TestAServerWithoutItsVIPLeavesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{Path: t.TempDir() + "/state.json"})
		a := state("one")
		a.Inside.Interfaces = []policy.Interface{
			{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.34/28"), netip.MustParsePrefix("192.0.2.35/28"), netip.MustParsePrefix("2001:db8::2/64")}},
			{Name: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.200/24")}},
		}
		apply(t, c, a)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.mu.Lock()
		targets := w.targets
		w.mu.Unlock()
		want := []reach.Target{
			{Key: key("a", 80), MAC: policy.MACOf("a", "eth1"), Interval: time.Second, Timeout: time.Second / 2, Rise: 2, Fall: 2},
			{Key: key("b", 80), MAC: policy.MACOf("b", "eth1"), Interval: time.Second, Timeout: time.Second / 2, Rise: 2, Fall: 2},
		}
		if diff := cmp.Diff(want, targets, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("probed (-want +got)\n%s", diff)
		}
		if own := ownOf(a.Inside); !slices.Equal(own, []netip.Addr{addr("192.0.2.34"), addr("2001:db8::2")}) {
			t.Errorf("probed from %v", own)
		}
		w.happened()
		now, b := time.Now(), reach.Finding{State: health.Up, Heard: time.Now().Add(time.Second)}
		w.find(map[reach.Key]reach.Finding{key("a", 80): {State: health.Down, Since: now, Missed: now}, key("b", 80): b})
		time.Sleep(3 * time.Second)
		wantHistory(t, w, "~ director update server a 10.0.0.1:80 of 203.0.113.10:80/tcp weight 100 -> 0 (vip missing or filtered)")
		s, err := c.Status(t.Context(), channel.Query{})
		if err != nil {
			t.Fatal(err)
		}
		if d := s.Services[0].Destinations[0]; !d.Up || !d.Unheard || d.Reason != vipMissing || d.Weight != 0 {
			t.Errorf("status says %+v", d)
		}
		if d := s.Services[0].Destinations[1]; !d.Up || d.Unheard || d.Reason != "" {
			t.Errorf("status says %+v of the other", d)
		}
		w.find(map[reach.Key]reach.Finding{key("a", 80): {State: health.Up, Since: time.Now()}, key("b", 80): b})
		time.Sleep(time.Second)
		wantHistory(t, w, raise1)
		w.set("a", true)
		time.Sleep(5 * time.Second)
		wantHistory(t, w, lower1)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.targets) != 1 || w.targets[0].Guest != "b" {
			t.Errorf("probed %v, want b alone", w.targets)
		}
	})
}

// way is a wire over a router that can filter, with real servers at its end that can fall silent.
type way struct {
	mu     sync.Mutex
	heard  func(reach.Answer)
	silent map[policy.MAC]bool
	closed bool // to all of them
}

func (w *way) open(_ []netip.Addr, heard func(reach.Answer)) (reach.Wire, error) {
	w.heard = heard
	return w, nil
}

func (w *way) Source(bool) (netip.AddrPort, bool) {
	return netip.MustParseAddrPort("192.0.2.34:40000"), true
}
func (w *way) Close() error { return nil }

func (w *way) Send(p reach.Probe, to policy.MAC) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.Reset && !w.closed && !w.silent[to] {
		time.AfterFunc(time.Millisecond, func() { w.heard(reach.Answer{From: p.To, To: p.From, Sequence: p.Sequence}) })
	}
	return nil
}

func (w *way) set(closed bool, silent ...policy.GuestName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed, w.silent = closed, map[policy.MAC]bool{}
	for _, g := range silent {
		w.silent[policy.MACOf(g, "eth1")] = true
	}
}

// TestARouterThatFiltersTakesNobodyOut follows a VIP through minutes in which a router filters, does not and does again, and looks all the time: no
// real server is missing then, and one that is missing is found within half a minute.
func TestARouterThatFiltersTakesNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := state("one")
		w := &way{}
		p := reach.New(slog.New(slog.DiscardHandler), w.open)
		done := make(chan struct{})
		go func() { defer close(done); p.Run(t.Context(), func() {}) }()
		t.Cleanup(func() { <-done })
		p.Want([]netip.Addr{addr("192.0.2.34")}, targets(a.Balancer, Well(a.Balancer)))
		follow := func(what string, long time.Duration, each func(Unheard)) {
			t.Helper()
			for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				each(unheardOf(a.Balancer, p.Findings(), func(string) time.Time { return time.Now() }))
				if t.Failed() {
					t.Fatalf("while %s", what)
				}
			}
		}
		nobody := func(u Unheard) {
			for hop, missing := range u {
				if missing {
					t.Errorf("%s is missing: %+v", hop.Guest, p.Findings())
				}
			}
		}
		for range 5 {
			follow("the way is open", 97*time.Second, nobody)
			w.set(true)
			follow("a router filters", 61*time.Second, nobody)
			w.set(false)
		}
		hop := Hop{KeyOf(a.Balancer.Services[0]), "a"}
		follow("the way is open again", time.Minute, nobody)
		w.set(false, "a")
		missing := time.Duration(0)
		begin := time.Now()
		follow("a has lost its VIP", time.Minute, func(u Unheard) {
			if u[hop] && missing == 0 {
				missing = time.Since(begin)
			}
		})
		if missing == 0 || missing > 30*time.Second {
			t.Errorf("found after %s, want it within half a minute", missing)
		}
		w.set(true, "a")
		follow("a router filters as well", time.Minute, func(Unheard) {})
		if u := unheardOf(a.Balancer, p.Findings(), func(string) time.Time { return time.Now() }); u[hop] || len(u) != 2 {
			t.Errorf("%v, want both unheard and none missing", u)
		}
	})
}
