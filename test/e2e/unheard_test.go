//go:build kernel

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// What a director says of a node whose VIP is missing, and of all of them when it hears none.
const (
	missing = "vip missing or filtered"
	kept    = "no probe through the vip is answered; kept, for it may be the way of the probes"
)

// nodeWithoutVIPLeaves: a filter of its own, inside a node, drops what is for the VIPs. Its check goes on by its own address and finds it well; no
// user is sent there all the same, and everybody is told why. The agent keeps the VIPs themselves on loopbacks, so that the filter stays.
func nodeWithoutVIPLeaves(t *testing.T, _ *blade) {
	inside := []string{"nsenter", "--net=" + policy.NamespacePath("www-1"), "nft"}
	run(t, append(inside, "add table inet lost; add chain inet lost in { type filter hook input priority 0; }; "+
		"add rule inet lost in ip daddr "+vip4+" drop; add rule inet lost in ip6 daddr "+vip6+" drop")...)
	eventually(t, 3*time.Minute, "www-1 is out of the rotation of both VIPs", func() error { return wantHeard(t, "www-1", false, missing) })
	for _, vip := range []string{vip4, vip6} {
		if got := ask(t, vip, 20); got["www-2"] != 20 {
			t.Errorf("%s: answered by %v, want 20 by www-2", vip, got)
		}
	}
	if err := wantHeard(t, "www-2", true, ""); err != nil {
		t.Error(err)
	}
	if out := ctl(t, "status"); !strings.Contains(out, "www-1=0 ("+missing+")") {
		t.Errorf("status does not say why:\n%s", out)
	}
	eventually(t, 2*time.Minute, "the journal says why", func() error { // of a director that says much it hears once a minute
		if out := ctl(t, "events", "--kind", "rotation"); !strings.Contains(out, "www-1 is well and not heard from the VIP") {
			return errors.New(lastLines(out, 5))
		}
		return nil
	})
	if out, _ := try(t, "status", "--nagios"); !strings.Contains(out, "1 real servers are well and not heard from a VIP: www-1") {
		t.Errorf("the plugin says %q", out)
	}
	run(t, append(inside, "delete table inet lost")...)
	eventually(t, 3*time.Minute, "www-1 is back", func() error { return wantHeard(t, "www-1", true, "") })
	for _, vip := range []string{vip4, vip6} {
		answeredBy(t, vip, "www-1", "www-2")
	}
}

// filteredProbesTakeNobodyOut: a router lets nothing pass from a VIP to the director's own addresses, as one may that filters by the reverse path.
// Users are answered by another way, and by the same nodes as before.
func filteredProbesTakeNobodyOut(t *testing.T, _ *blade) {
	router := []string{"ip", "netns", "exec", "router", "nft"}
	run(t, append(router, "add table inet lost; add chain inet lost way { type filter hook forward priority 0; }; "+
		"add rule inet lost way ip saddr "+vip4+" ip daddr 192.0.2.0/28 drop; add rule inet lost way ip6 saddr "+vip6+" ip6 daddr 2001:db8:111::/64 drop")...)
	for _, node := range []string{"www-1", "www-2"} {
		eventually(t, 3*time.Minute, node+" is not heard and stays", func() error { return wantDestination(t, node, true, false, kept) })
	}
	for _, vip := range []string{vip4, vip6} {
		if got := ask(t, vip, 20); got["www-1"] == 0 || got["www-1"]+got["www-2"] != 20 {
			t.Errorf("%s: answered by %v, want 20 over www-1 and www-2", vip, got)
		}
	}
	run(t, append(router, "delete table inet lost")...)
	for _, node := range []string{"www-1", "www-2"} {
		eventually(t, 3*time.Minute, node+" is heard", func() error { return wantHeard(t, node, true, "") })
	}
}

// wantHeard says how a node's state differs at any VIP: it passes its check all the time, and is heard and has its weight, or not and why.
func wantHeard(t *testing.T, node string, heard bool, reason string) error {
	t.Helper()
	return wantDestination(t, node, heard, heard, reason)
}

func wantDestination(t *testing.T, node string, weighs, heard bool, reason string) error {
	t.Helper()
	weight := 0
	if weighs {
		weight = 100
	}
	found := 0
	for _, s := range status(t).Services {
		for _, d := range s.Destinations {
			if string(d.Guest) != node {
				continue
			}
			found++
			if !d.Up || d.Unheard == heard || d.Weight != weight || d.Reason != reason {
				return fmt.Errorf("at %s it is %+v", s.VIP, d)
			}
		}
	}
	if found == 0 {
		return errors.New("no service has it")
	}
	return nil
}
