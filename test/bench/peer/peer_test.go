package peer

import (
	"net/netip"
	"testing"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/golden"
)

// TestRules shows what the peers' rules are for two guests, one of them with a VIP.
func TestRules(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	guests := []Guarded{
		{Port: "a.0", MAC: policy.MAC{2, 0, 0, 0, 0, 1}, Own: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}},
		{Port: "b.0", MAC: policy.MAC{2, 0, 0, 0, 0, 2}, Own: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Open: []Opened{{VIP: vip, Ports: []uint16{80, 443}}}},
	}
	sets, rules := IPSets([]netip.Addr{vip}, guests)
	for name, text := range map[string]string{
		"iptables": IPTables([]netip.Addr{vip}, guests), "ipset": sets, "iptables-with-ipset": rules, "nwfilter": NWFilter(guests),
	} {
		t.Run(name, func(t *testing.T) { golden.Check(t, name+".golden", text) })
	}
}
