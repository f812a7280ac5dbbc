package director

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

const announceA = "+ " + vipA

// TestTheFirstAnnouncementWaitsForEveryVerdict holds that a director which comes up announces a table that knows all servers: one
// that hangs and one that is well are both in it as they are.
func TestTheFirstAnnouncementWaitsForEveryVerdict(t *testing.T) {
	for name, hangs := range map[string]bool{"all are well": false, "one hangs": true} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // the first probes come at random moments
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					w.hang["b"] = hangs
					c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
					apply(t, c, state("one"))
					for range 40 {
						time.Sleep(50 * time.Millisecond)
						synctest.Wait()
						if s, err := c.Status(t.Context(), channel.Query{}); err != nil || !s.VIPs[0].Up && !strings.Contains(s.VIPs[0].Reason, "waits for the first check") {
							t.Errorf("status %+v, error %v", s, err)
						}
					}
					want := []string{raise1, raise2, announceA}
					if hangs {
						want = []string{raise1, announceA}
					}
					if got := w.happened()[3:]; !slices.Equal(got, want) {
						t.Errorf("happened %q, want %q", got, want)
					}
				})
			}
		})
	}
}

// TestACheckThatHangsDoesNotHoldForEver holds that a probe which does not even keep its time delays the announcement by as long as
// the failures of a server that is found dead.
func TestACheckThatHangsDoesNotHoldForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.stuck = make(chan struct{})
		c, stop := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		apply(t, c, state("one"))
		synctest.Wait()
		w.happened()
		time.Sleep(1900 * time.Millisecond) // the first probe within 1 s, and twice the timeout of 500 ms
		wantHistory(t, w)
		time.Sleep(1200 * time.Millisecond) // and the next look
		wantHistory(t, w, raise1, announceA)
		close(w.stuck)
		time.Sleep(2 * time.Second)
		wantHistory(t, w, raise2)
		stop()
	})
}

// TestASorryServerDoesNotAnnounceBeforeTheOthersAreKnown holds that a director that comes up sends nobody to it needlessly.
func TestASorryServerDoesNotAnnounceBeforeTheOthersAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		a := state("one")
		d := &a.Balancer.Services[0].Destinations
		*d = append(*d, policy.Destination{Guest: "s", Address: addr("10.0.0.9"), Port: 80, Weight: 100, Sorry: true})
		apply(t, c, a)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := w.happened()[4:]; !slices.Equal(got, []string{raise1, raise2, announceA}) {
			t.Errorf("happened %q", got)
		}
	})
}

// TestANewServiceWaitsAndTakesNothingAway holds that a service which a new policy brings waits for its own verdicts, that others on its
// VIP stay announced, and that a server which joins a service that is there waits alone.
func TestANewServiceWaitsAndTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := running(t, w)
		a := state("two")
		v := a.Balancer.Services[0]
		v.Service, v.Port = "more", 443
		v.Destinations = nil
		for i, id := range []string{"c", "d"} {
			ip := addr([]string{"10.0.0.3", "10.0.0.4"}[i])
			v.Destinations = append(v.Destinations, policy.Destination{Guest: policy.GuestName(id), Address: ip, Port: 443, Weight: 10, Check: id})
			a.Balancer.Checks = append(a.Balancer.Checks, policy.Check{ID: id, Guest: policy.GuestName(id), Interval: time.Second, Timeout: time.Second / 2, Rise: 2, Fall: 2})
		}
		w.hang["d"] = true
		a.Balancer.Services = append(a.Balancer.Services, v)
		apply(t, c, a)
		time.Sleep(2 * time.Second)
		wantHistory(t, w,
			"+ director create service more 203.0.113.10:443/tcp scheduler wlc",
			"+ director create server c 10.0.0.3:443 of 203.0.113.10:443/tcp weight 0 (not checked yet)",
			"+ director create server d 10.0.0.4:443 of 203.0.113.10:443/tcp weight 0 (not checked yet)",
			"~ director update server c 10.0.0.3:443 of 203.0.113.10:443/tcp weight 0 -> 10")
		a = state("three")
		d := &a.Balancer.Services[0].Destinations
		*d = append(*d, policy.Destination{Guest: "e", Address: addr("10.0.0.5"), Port: 80, Weight: 10, Check: "e"})
		a.Balancer.Checks = append(a.Balancer.Checks, policy.Check{ID: "e", Guest: "e", Interval: time.Second, Timeout: time.Second / 2, Rise: 2, Fall: 2})
		apply(t, c, a)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, line := range w.happened() {
			if strings.HasPrefix(line, "- 203") || strings.Contains(line, "-> 0") {
				t.Errorf("taken away: %s", line)
			}
		}
		if got := weights(w); got["10.0.0.5"] != 10 {
			t.Errorf("weights %v", got)
		}
	})
}

// TestARestartWithdrawsNothing holds that the last good table and VIP stay while the new process knows nothing, whatever hangs.
func TestARestartWithdrawsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		store := Store{filepath.Join(t.TempDir(), "state.json")}
		c, stop := controller(t, w, store)
		apply(t, c, state("one"))
		time.Sleep(3 * time.Second)
		stop()
		synctest.Wait()
		w.happened()
		w.hang["a"], w.hang["b"] = true, true
		_, stop = controller(t, w, store)
		time.Sleep(450 * time.Millisecond) // before the first probe's time is over
		wantHistory(t, w)
		stop()
		w.hang["a"], w.hang["b"] = false, false
		controller(t, w, store)
		time.Sleep(time.Minute)
		wantHistory(t, w)
	})
}
