package inside

import (
	"net/netip"
	"slices"
	"testing"
)

// TestFloatingAddresses: what floats on eth0 is left alone, there, at its full length, and no other address with it.
func TestFloatingAddresses(t *testing.T) {
	want := realServer()
	want.Floating = []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:111::10")}
	for _, c := range []struct {
		link   int
		prefix string
		stays  bool
		found  bool // among what floats, whoever wants it
	}{
		{2, "192.0.2.10/32", true, true},
		{2, "2001:db8:111::10/128", true, true},
		{2, "192.0.2.11/32", false, true},
		{2, "192.0.2.10/26", false, false},
		{3, "192.0.2.10/32", false, false},
		{1, "192.0.2.10/32", false, false},
		{2, "fe80::7/128", true, false},
	} {
		m := settled(t, want)
		m.Addresses = append(m.Addresses, Address{Link: c.link, Prefix: netip.MustParsePrefix(c.prefix), Lasting: true, Preferred: true})
		if steps := Plan(want, m.clone(want)); (len(steps) == 0) != c.stays {
			t.Errorf("%s on link %d: %s", c.prefix, c.link, render(t, steps))
		}
		if found := slices.ContainsFunc(m.floating(), func(a Address) bool { return a.Prefix.String() == c.prefix }); found != c.found {
			t.Errorf("%s on link %d floats: %t", c.prefix, c.link, found)
		}
	}
	if none := newModel().floating(); none != nil {
		t.Errorf("without eth0 there is %v", none)
	}
}
