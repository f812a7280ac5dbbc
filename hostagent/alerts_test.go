package hostagent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/alert"
	"github.com/bladenet/bladenet/policy"
)

// TestDirectorAlerts: a server that is down is one alert a service with all its VIPs and its site; what is drained or not checked yet is none. One
// whose VIP is missing is another alert, and VIPs of which nobody is heard are one for all.
func TestDirectorAlerts(t *testing.T) {
	vip4, vip6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:5::10")
	dest := func(name policy.GuestName, up bool, reason string) channel.DestinationStatus {
		return channel.DestinationStatus{Guest: name, Up: up, Reason: reason}
	}
	service := func(vip netip.Addr, port uint16, up bool, d ...channel.DestinationStatus) channel.ServiceStatus {
		return channel.ServiceStatus{Service: "www", VIP: vip, Port: port, Protocol: policy.TCP, Up: up, Destinations: d}
	}
	g := policy.Guest{Name: "dir-1", Balancer: &policy.Balancer{Services: []policy.VirtualService{
		{Destinations: []policy.Destination{{Guest: "www-1", Site: "lombarderie"}, {Guest: "www-2", Site: "tertre"}}},
	}}}
	list := []channel.DestinationStatus{
		dest("www-1", true, "drained"), dest("www-2", false, "down: connection refused"), dest("www-3", false, "not checked yet"),
	}
	got := directorAlerts(g, "lombarderie", channel.Status{
		Services: []channel.ServiceStatus{service(vip4, 80, true, list...), service(vip4, 443, true, list...), service(vip6, 80, false, list...)},
		VIPs:     []channel.VIPStatus{{Address: vip4, Up: true}, {Address: vip6, Reason: "www has 1 of 2 real servers that it needs"}},
	})
	want := []alert.Alert{
		{Kind: alert.ServerDown, Service: "www", VIPs: []netip.Addr{vip4, vip6}, RealServer: "www-2", Site: "tertre", Director: "dir-1", Reason: "down: connection refused"},
		{Kind: alert.ServiceDown, Service: "www", VIPs: []netip.Addr{vip6}, Site: "lombarderie", Director: "dir-1", Reason: "too few real servers are up"},
		{Kind: alert.VIPWithdrawn, VIPs: []netip.Addr{vip6}, Site: "lombarderie", Director: "dir-1", Reason: "www has 1 of 2 real servers that it needs"},
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	unheard := func(name policy.GuestName, weight int, reason string) channel.DestinationStatus {
		return channel.DestinationStatus{Guest: name, Up: true, Unheard: true, Weight: weight, Reason: reason}
	}
	missing := []channel.DestinationStatus{unheard("www-1", 0, "vip missing or filtered"), dest("www-2", true, "")}
	kept := []channel.DestinationStatus{unheard("www-1", 100, "no probe"), unheard("www-2", 100, "no probe"), unheard("www-3", 0, "drained")}
	other := service(netip.MustParseAddr("203.0.113.11"), 80, true, kept...)
	other.Service = "shop"
	got = directorAlerts(g, "lombarderie", channel.Status{Services: []channel.ServiceStatus{service(vip4, 80, true, missing...), service(vip6, 80, true, kept...), other}})
	want = []alert.Alert{
		{Kind: alert.VIPMissing, Service: "www", VIPs: []netip.Addr{vip4}, RealServer: "www-1", Site: "lombarderie", Director: "dir-1", Reason: "vip missing or filtered"},
		{
			Kind: alert.VIPUnheard, VIPs: []netip.Addr{vip6, other.VIP}, Site: "lombarderie", Director: "dir-1",
			Reason: "by no real server of a site: a router may filter the answers; weights are kept",
		},
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
