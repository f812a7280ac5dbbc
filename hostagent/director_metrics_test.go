package hostagent

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/golden"
)

// TestDirectorMetrics: what a director counted is exposed, a line that it says twice once.
func TestDirectorMetrics(t *testing.T) {
	load := channel.Load{Active: 3, Inactive: 40, NewRate: 5, Total: channel.Total{Connections: 1 << 33, Packets: 1 << 40, Bytes: 1 << 50}}
	one := channel.DestinationStatus{Guest: "www-1", Up: true, Weight: 100, Load: load}
	status := channel.Status{
		Omitted: 2,
		Services: []channel.ServiceStatus{{
			Service: "www", VIP: netip.MustParseAddr("2001:db8:5::10"), Protocol: policy.TCP, Port: 443,
			Destinations: []channel.DestinationStatus{one, {Guest: "www-2"}, {Guest: "www-3", Up: true, Unheard: true}, one},
		}},
		Probes: []channel.ProbeStatus{{ID: "http/10.0.0.1:80/abcd", Guest: "www-1", Up: true, Took: 1500 * time.Microsecond, Ended: 9, Failed: 2}},
	}
	a := &Agent{helpers: &helpers{each: map[policy.GuestName]*conversation{"dir-1": {counted: status, seen: time.Now()}}}}
	var text bytes.Buffer
	x := &exposition{w: &text}
	a.writeDirectorMetrics(x, policy.Blade{Guests: []policy.Guest{{Name: "dir-1"}, {Name: "www-1"}}})
	if x.err != nil {
		t.Fatal(x.err)
	}
	golden.Check(t, "director_metrics.txt", text.String())
}

// TestScrapesAskNowAndThen: while somebody scrapes, a director counts once in scrapeAge and not at each question; nobody scrapes, it does not.
func TestScrapesAskNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &helpers{}
		c := &conversation{}
		asked := func(seconds int) (n int) {
			for range 2 * seconds {
				if d.query(c).Count {
					n++
					c.when = time.Now()
				}
				time.Sleep(helperPoll)
			}
			return n
		}
		if n := asked(60); n != 0 {
			t.Errorf("asked %d times though nobody scraped", n)
		}
		d.scrape()
		if n := asked(60); n != 6 {
			t.Errorf("asked %d times in a minute after a scrape, want 6", n)
		}
		time.Sleep(scrapeFor)
		if n := asked(60); n != 0 {
			t.Errorf("asked %d times though scrapes have ended", n)
		}
		d.count()
		if n := asked(60); n != 20 {
			t.Errorf("asked %d times while somebody looks for 10 s, want 20", n)
		}
	})
}
