//go:build kernel

package traffic

import (
	"net"
	"net/netip"
	"testing"
)

var left, right = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}

// wired makes a bridge with two ports in a namespace of its own.
func wired(t *testing.T) (*Namespace, *Bridge) {
	t.Helper()
	n, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	b, err := n.NewBridge("br0", map[string]net.HardwareAddr{"left": left, "right": right})
	if err != nil {
		t.Fatal(err)
	}
	return n, b
}

// arrive sends packets of a flow from left to right and fails if one is lost.
func arrive(t *testing.T, b *Bridge, vip string, answer bool, count int) {
	t.Helper()
	f := flow(vip, "198.18.0.0", answer)
	if f.v6() {
		f.Client = netip.MustParseAddr("2001:db8:c::")
	}
	p, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ns, err := Passage{Bridge: b, From: "left", To: "right", Program: p}.Cost(count)
	if err != nil || ns <= 0 {
		t.Errorf("to or from %s, answer %v: %v ns, %v", vip, answer, ns, err)
	}
}

// TestEveryPacketArrives sends both families both ways over a bridge and counts.
func TestEveryPacketArrives(t *testing.T) {
	_, b := wired(t)
	for _, vip := range []string{"10.0.0.1", "2001:db8::1"} {
		arrive(t, b, vip, false, 6400)
		arrive(t, b, vip, true, 6400)
	}
}

// TestChecksums lets through only what conntrack takes for new, and that is only what has right checksums.
func TestChecksums(t *testing.T) {
	n, b := wired(t)
	const rules = "table inet t { chain c { type filter hook forward priority 0; policy drop; ct state new accept; }\n}\n"
	if _, err := n.Run(rules, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	// A kernel that has it built in has no such module.
	if _, err := n.Run("", "modprobe", "br_netfilter"); err != nil {
		t.Log(err)
	}
	if err := n.CallIPTables(true); err != nil {
		t.Fatal(err)
	}
	arrive(t, b, "10.0.0.1", false, 640)
	arrive(t, b, "2001:db8::1", false, 640)
}
