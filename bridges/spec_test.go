package bridges

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/golden"
)

// TestWanted derives the links of a blade with one director and one real server.
func TestWanted(t *testing.T) {
	mac := policy.MAC{2, 0, 0, 0, 0, 1}
	b := policy.Blade{
		Name: "b1", Trunk: "eno1",
		Segments: []policy.Segment{
			{Network: "service", VLAN: 120, Link: "vlan120", Bridge: "br120"},
			{Network: "uplink", VLAN: 111, Link: "vlan111", Bridge: "br111"},
		},
		Guests: []policy.Guest{
			{Name: "www-1", Driver: policy.DriverLXC, Ports: []policy.Port{{Name: "p2", Interface: "eth1", Bridge: "br120", MAC: mac}}},
			{Name: "dir-1", Driver: policy.DriverKVM, Ports: []policy.Port{{Name: "p1", Interface: "eth0", Bridge: "br111", MAC: policy.MAC{0xfe, 1}}}},
		},
	}
	want := Spec{
		Trunk: "eno1",
		VLANs: []VLAN{{Name: "vlan111", ID: 111, Network: "uplink", Bridge: "br111"}, {Name: "vlan120", ID: 120, Network: "service", Bridge: "br120"}},
		Bridges: []Bridge{
			{Name: "br111", Network: "uplink", MAC: bridgeMAC("b1", "br111")},
			{Name: "br120", Network: "service", MAC: bridgeMAC("b1", "br120")},
		},
		Namespaces: []policy.GuestName{"www-1"},
		Ports: []Port{
			{Name: "p1", Kind: KindTap, Guest: "dir-1", Interface: "eth0", Bridge: "br111", MAC: policy.MAC{0xfa, 1}, GuestMAC: policy.MAC{0xfe, 1}},
			{Name: "p2", Kind: KindVeth, Guest: "www-1", Interface: "eth1", Bridge: "br120", MAC: policy.MAC{0xfe, 0, 0, 0, 0, 1}, GuestMAC: mac},
		},
	}
	if diff := cmp.Diff(want, Wanted(b)); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
	slices.Reverse(b.Guests)
	slices.Reverse(b.Segments)
	if diff := cmp.Diff(want, Wanted(b)); diff != "" {
		t.Errorf("the order of the policy matters (-want +got):\n%s", diff)
	}
}

// TestBridgeMAC demands addresses that are local, unicast, and another for each bridge of each blade.
func TestBridgeMAC(t *testing.T) {
	seen := map[policy.MAC]bool{}
	for _, blade := range []policy.BladeName{"b1", "b2"} {
		for _, bridge := range []string{"br111", "br120", "br130"} {
			mac := bridgeMAC(blade, bridge)
			if mac[0]&0x03 != 0x02 {
				t.Errorf("%s is not a local unicast address", mac)
			}
			if seen[mac] {
				t.Errorf("%s is there twice", mac)
			}
			seen[mac] = true
		}
	}
}

// TestOurs demands both marks of our links, and that a copy of an alias is none.
func TestOurs(t *testing.T) {
	for _, c := range []struct {
		link Link
		want bool
	}{
		{Link{Name: "br120", Alias: Bridge{Name: "br120", Network: "service"}.alias()}, true},
		{Link{Name: "br120", Alias: Bridge{Name: "br120", Network: "renamed since"}.alias()}, true},
		{Link{Name: "br121", Alias: Bridge{Name: "br120", Network: "service"}.alias()}, false},
		{Link{Name: "br12", Alias: Bridge{Name: "br120", Network: "service"}.alias()}, false},
		{Link{Name: "br120"}, false},
		{Link{Name: "br120", Group: newborn}, true},
		{Link{Name: "br120", Group: newborn, Alias: "mine"}, false},
		{Link{Name: "br120", Alias: "bladenet"}, false},
	} {
		if got := c.link.ours(); got != c.want {
			t.Errorf("ours(%+v) is %v", c.link, got)
		}
	}
}

// TestRender compares the lines of a small blade with a golden file.
func TestRender(t *testing.T) {
	var b bytes.Buffer
	if err := Render(&b, vlanSpec()); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "links.ip", b.String())
}
