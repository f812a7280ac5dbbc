package director

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// large is a hundred services with ten real servers each; a hundred real servers stand behind them.
func large(revision string) channel.Apply {
	a := channel.Apply{Revision: revision, Guest: "dir"}
	for i := range 100 {
		id := fmt.Sprint("c", i)
		a.Balancer.Checks = append(a.Balancer.Checks, policy.Check{
			ID: id, Guest: policy.GuestName(fmt.Sprint("g", i)), Interval: time.Second, Timeout: time.Second / 2, Rise: 2, Fall: 2,
		})
	}
	for i := range 100 {
		vip := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		a.Inside.VIPs = append(a.Inside.VIPs, policy.VIP{Address: vip, Services: []policy.ServiceName{"www"}})
		v := policy.VirtualService{Service: "www", VIP: vip, Protocol: "tcp", Port: 80, Scheduler: "wlc", Mode: "spread", Quorum: 1}
		for j := range 10 {
			n := i%10*10 + j
			v.Destinations = append(v.Destinations, policy.Destination{
				Guest: policy.GuestName(fmt.Sprint("g", n)), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), Port: 80, Weight: 100, Check: fmt.Sprint("c", n),
			})
		}
		a.Balancer.Services = append(a.Balancer.Services, v)
	}
	return a
}

// TestChecksGoOnWhateverElseChanges follows the moments of every probe through changes of weights, quorums, schedulers, VIPs, of
// one check and of one real server: no other check misses one, repeats one or is moved.
func TestChecksGoOnWhateverElseChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		probes := map[string][]time.Time{}
		c := New(Config{
			Log: slog.New(slog.DiscardHandler), Store: Store{filepath.Join(t.TempDir(), "state.json")}, Software: "test",
			Table: fakeTable{w}, Place: fakePlace{w}, Announcer: fakeAnnouncer{w}, Prober: fakeProber{w}, End: func(bool) {},
			Probe: func(_ context.Context, check policy.Check) (health.Answer, error) {
				mu.Lock()
				defer mu.Unlock()
				probes[check.ID] = append(probes[check.ID], time.Now())
				return health.Answer{}, nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		apply(t, c, large("first"))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		w.happened()

		a := large("weight")
		a.Balancer.Services[50].Destinations[3].Weight = 50
		apply(t, c, a)
		synctest.Wait()
		if got := w.happened(); len(got) != 1 || !strings.Contains(got[0], "weight 100 -> 50") {
			t.Errorf("one weight of a thousand made %d changes: %.3q", len(got), got)
		}
		for i, change := range []func(*policy.Balancer){
			func(b *policy.Balancer) { b.Services[1].Quorum = 5 },
			func(b *policy.Balancer) { b.Services[2].Scheduler = "wrr" },
			func(b *policy.Balancer) { b.Services[3].Persistence = time.Minute },
			func(b *policy.Balancer) { b.Services = b.Services[:90] },
			func(b *policy.Balancer) { b.Checks[99].Interval = 2 * time.Second },
			func(b *policy.Balancer) { b.Announce.Drained = true },
			func(b *policy.Balancer) { b.Services[4].Destinations[0].Drained = true },
		} {
			a := large(fmt.Sprint("change", i))
			change(&a.Balancer)
			if i == 3 {
				a.Inside.VIPs = a.Inside.VIPs[:90]
			}
			apply(t, c, a)
			time.Sleep(1300 * time.Millisecond)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for id, at := range probes {
			if id == "c99" {
				continue // its own check was changed
			}
			if n := len(at); n < 11 {
				t.Errorf("%s: %d probes in 12 s", id, n)
			}
			gaps := map[time.Duration]bool{}
			for i := 1; i < len(at); i++ {
				gaps[at[i].Sub(at[i-1])] = true
			}
			if len(gaps) != 1 || !gaps[time.Second] {
				t.Errorf("%s: not one second between its probes: %v", id, gaps)
			}
		}
	})
}
