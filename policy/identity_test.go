package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPortName(t *testing.T) {
	cases := []struct {
		guest GuestName
		iface string
		want  string
	}{
		{"a", "eth0", "a.0"},
		{"www-l1", "eth1", "www-l1.1"},
		{"exactly-13-by", "eth0", "exactly-13-by.0"},
		{"one-byte-more!", "eth0", "one-by_e1542f.0"},
		{GuestName(strings.Repeat("x", 63)), "eth1", "xxxxxx_75220b.1"},
	}
	for _, c := range cases {
		got := PortName(c.guest, c.iface)
		if got != c.want || len(got) > 15 {
			t.Errorf("%s %s: %s (%d bytes), want %s", c.guest, c.iface, got, len(got), c.want)
		}
	}
}

// TestIdentitiesAreStable holds what guests on running blades already have: a change here would rename every port, change
// every MAC and every vsock address of a platform.
func TestIdentitiesAreStable(t *testing.T) {
	got := []string{
		MACOf("www-l1", "eth0").String(), MACOf("www-l1", "eth1").String(), VLANLink(120), BridgeName(4094), NamespacePath("www-l1"),
		LinkLocal(MAC{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}).String(), LinkLocal(MACOf("dir-pub-l", "eth0")).String(), itoa(int64(CIDOf("dir-pub-l"))),
	}
	want := []string{
		"02:c3:87:bf:d4:7d", "02:9e:ae:7f:32:29", "vlan120", "br4094", "/run/bladenet/netns/www-l1",
		"fe80::11:22ff:fe33:4455", "fe80::25:47ff:feb6:d955", "819364883",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCIDsAreInRange(t *testing.T) {
	for i := range 10_000 {
		if id := CIDOf(GuestName("dir-" + itoa(int64(i)))); id < 0x10000 || id >= 1<<31 {
			t.Fatalf("dir-%d has %d", i, id)
		}
	}
}
