package hostagent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/alert"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// TestLimits: a port is beyond its limit from the first drop seen until it has lost nothing for a while; what was lost before the agent
// began, and counters that begin anew, are no news.
func TestLimits(t *testing.T) {
	counters := func(packets uint64) nft.Counters {
		return nft.Counters{Ports: map[string]map[filter.Reason]nft.Counter{
			"www-1.0": {filter.ConnLimit: {Packets: packets}, filter.NoRule: {Packets: 10 * packets}},
			"www-2.0": {filter.Storm: {Packets: 7}},
		}}
	}
	var l limits
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		packets uint64
		after   time.Duration
		want    []excess
	}{
		{50, 0, nil},
		{50, limitsLook, nil},
		{51, limitsLook, []excess{{"www-1.0", filter.ConnLimit}}},
		{51, limitsQuiet - limitsLook, []excess{{"www-1.0", filter.ConnLimit}}},
		{51, limitsLook, nil},
		{3, limitsLook, nil},
		{4, limitsLook, []excess{{"www-1.0", filter.ConnLimit}}},
	} {
		at = at.Add(step.after)
		l.note(counters(step.packets), at)
		if diff := cmp.Diff(step.want, l.exceeded(), cmp.AllowUnexported(excess{})); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
	guests := []policy.Guest{{Name: "www-1", Ports: []policy.Port{{Name: "www-1.0"}, {Name: "www-1.1"}}}, {Name: "www-2"}}
	want := []alert.Alert{{Kind: alert.Limited, Guest: "www-1", Site: "tertre", Object: "port www-1.0", Reason: "conn-limit"}}
	if diff := cmp.Diff(want, limitAlerts(l.exceeded(), guests, "tertre")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
