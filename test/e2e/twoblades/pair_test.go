//go:build kernel

package twoblades

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// floatingVIPs are the VIPs of the fleet vrrp, in the subnets of its uplink.
var floatingVIPs = []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:111::10")}

// TestVRRPPair is the life of a pair on a LAN whose router speaks no routing protocol. Users ask all the time; what they miss at each change is
// in the log.
func TestVRRPPair(t *testing.T) {
	eventually(t, 10*time.Minute, "both real servers answer over both VIPs", pairAnswers)
	eventually(t, time.Minute, "the first director has the VIPs", func() error { return has(t, "dir-1") })
	if routes := run(t, "ip", "-n", "router", "route", "show", "via", "192.0.2.2") + run(t, "ip", "-n", "router", "route", "show", "via", "192.0.2.3"); routes != "" {
		t.Errorf("the router has routes by directors: %s", routes)
	}
	for _, c := range []struct {
		name      string
		end, back func(t *testing.T)
	}{
		{"its machine is killed", func(t *testing.T) { kill(t, "dir-1") }, func(*testing.T) {}}, // its blade starts it again
		{"its machine is paused", func(t *testing.T) { suspend(t, "dir-1") }, func(t *testing.T) { resume(t, "dir-1") }},
		{"it loses its real servers", cutChecks, mendChecks},
		{"it is drained", func(t *testing.T) { on(t, blades[0], "bladectl", "drain", "dir-1", "--wait", "0") }, func(t *testing.T) { on(t, blades[0], "bladectl", "undrain", "dir-1") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			users := askAlways()
			began := time.Now()
			c.end(t)
			eventually(t, time.Minute, "the VIPs are at the second director", func() error { return at(t, "dir-2") })
			moved := time.Since(began)
			eventually(t, time.Minute, "the second director says so", func() error { return has(t, "dir-2") })
			eventually(t, time.Minute, "users are answered", pairAnswers)
			away := users.stop()
			users = askAlways()
			began = time.Now()
			c.back(t)
			eventually(t, 3*time.Minute, "the VIPs are at the first director again", func() error { return at(t, "dir-1") })
			returned := time.Since(began)
			eventually(t, time.Minute, "the first director says so", func() error { return has(t, "dir-1") })
			eventually(t, time.Minute, "users are answered", pairAnswers)
			home := users.stop()
			t.Logf("the router goes by the second after %.1f s, users missed %v; back %.1f s later, missed %v", moved.Seconds(), away, returned.Seconds(), home)
		})
	}
	untracked(t)
	unhindered(t)
}

// pairAnswers wants each real server's word from each VIP.
func pairAnswers() error { return allAnswer(floatingVIPs) }

// at returns an error unless the router knows both VIPs at a director's MAC.
func at(t *testing.T, director policy.GuestName) error {
	t.Helper()
	mac := policy.MACOf(director, "eth0").String()
	for _, vip := range floatingVIPs {
		if at := run(t, "ip", "-n", "router", "neigh", "show", vip.String()); !strings.Contains(at, mac) {
			return fmt.Errorf("%s is not at %s of %s: %s", vip, mac, director, at)
		}
	}
	return nil
}

// has returns an error unless they are there and the director says that it has them.
func has(t *testing.T, director policy.GuestName) error {
	t.Helper()
	if err := at(t, director); err != nil {
		return err
	}
	blade := blades[map[policy.GuestName]int{"dir-1": 0, "dir-2": 1}[director]]
	status := on(t, blade, "bladectl", "status")
	if !strings.Contains(status, "has 2 VIPs") {
		return fmt.Errorf("%s says:\n%s", blade, status)
	}
	return nil
}

// always is a user of each VIP who asks again and again, and what he missed.
type always struct {
	done chan struct{}
	wait sync.WaitGroup

	mu   sync.Mutex
	gaps map[netip.Addr]time.Duration // the longest time without an answer
}

func askAlways() *always {
	a := &always{done: make(chan struct{}), gaps: map[netip.Addr]time.Duration{}}
	for _, vip := range floatingVIPs {
		a.wait.Go(func() {
			_ = traffic.In(clientSpace, func() error { a.ask(vip); return nil })
		})
	}
	return a
}

func (a *always) ask(vip netip.Addr) {
	last := time.Now()
	for {
		select {
		case <-a.done:
			a.note(vip, time.Since(last))
			return
		case <-time.After(20 * time.Millisecond):
		}
		if answer, err := talk(netip.AddrPort{}, netip.AddrPortFrom(vip, webPort), "GET / HTTP/1.0\r\n\r\n", time.Second); err == nil && strings.Contains(answer, "200 OK") {
			a.note(vip, time.Since(last))
			last = time.Now()
		}
	}
}

func (a *always) note(vip netip.Addr, gap time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gaps[vip] = max(a.gaps[vip], gap)
}

// stop returns how long users of each VIP were without an answer at most.
func (a *always) stop() string {
	close(a.done)
	a.wait.Wait()
	var out []string
	for vip, gap := range a.gaps {
		out = append(out, fmt.Sprintf("%s %.1f s", vip, gap.Seconds()))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// cutChecks keeps the first director's checks from its real servers, by a table that is not the agent's; mendChecks lets them through again.
func cutChecks(t *testing.T) {
	t.Helper()
	const table = `table bridge cut {
	chain forward {
		type filter hook forward priority -400; policy accept;
		ip saddr 10.12.0.2 drop
		ip6 saddr 2001:db8:120::2 drop
	}
}
`
	on(t, blades[0], "sh", "-c", "nft -f - <<'END'\n"+table+"END\n")
}

func mendChecks(t *testing.T) {
	t.Helper()
	on(t, blades[0], "nft", "delete", "table", "bridge", "cut")
}

// unhindered wants that no claim of a VIP was dropped, and nobody's question for one: what the pair says is what the filter lets it say.
func unhindered(t *testing.T) {
	t.Helper()
	for _, blade := range blades {
		for _, counter := range []string{"vip-arp", "vip-nd"} {
			list := on(t, blade, "nft", "list", "counter", "bridge", "bladenet", counter)
			if !strings.Contains(list, "packets 0 ") {
				t.Errorf("%s dropped what it should not have: %s", blade, list)
			}
		}
	}
}
