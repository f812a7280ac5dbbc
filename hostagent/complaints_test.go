package hostagent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

// The origin of this project, with ldirectord: alerts that name neither the VIP nor the node.
func TestComplaintAlertsWithoutNames(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	g := policy.Guest{Name: "dir-1", Balancer: &policy.Balancer{Services: []policy.VirtualService{
		{Destinations: []policy.Destination{{Guest: "www-2", Site: "tertre"}}},
	}}}
	alerts := directorAlerts(g, "lombarderie", channel.Status{Services: []channel.ServiceStatus{{
		Service: "www", VIP: vip, Port: 80, Protocol: policy.TCP, Up: true,
		Destinations: []channel.DestinationStatus{{Guest: "www-2", Reason: "down: connection refused"}},
	}}})
	if len(alerts) != 1 {
		t.Fatalf("%d alerts", len(alerts))
	}
	alerts[0].Since = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for what, name := range map[string]string{
		"service": "www", "VIP": "203.0.113.10", "real server": "www-2", "its site": "tertre", "director": "dir-1",
		"reason": "connection refused", "since when": "2026-03-01T12:00:00Z",
	} {
		if text := alerts[0].String(); !strings.Contains(text, name) {
			t.Errorf("no %s in %q", what, text)
		}
	}
}
