//go:build kernel

package traffic

import (
	"net"
	"net/netip"
	"testing"
)

// TestEveryPacketArrives sends both families both ways over a bridge and counts.
func TestEveryPacketArrives(t *testing.T) {
	n, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	from, to := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	b, err := n.NewBridge("br0", map[string]net.HardwareAddr{"left": from, "right": to})
	if err != nil {
		t.Fatal(err)
	}
	for _, vip := range []string{"10.0.0.1", "2001:db8::1"} {
		for _, answer := range []bool{false, true} {
			f := Flow{Source: from, Destination: to, Client: netip.MustParseAddr("198.18.0.0"), VIP: netip.MustParseAddr(vip), VIPs: 7, Port: 80, Ports: 3, Answer: answer}
			if f.v6() {
				f.Client = netip.MustParseAddr("2001:db8:c::")
			}
			p, err := Load(f)
			if err != nil {
				t.Fatal(err)
			}
			ns, err := Passage{Bridge: b, From: "left", To: "right", Program: p}.Cost(6400)
			if err != nil || ns <= 0 {
				t.Errorf("to or from %s, answer %v: %v ns, %v", vip, answer, ns, err)
			}
			p.Close()
		}
	}
}

// TestChecksums lets nft count the packets that conntrack takes for valid, which it does only with a right checksum.
func TestChecksums(t *testing.T) {
	n, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	from, to := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	b, err := n.NewBridge("br0", map[string]net.HardwareAddr{"left": from, "right": to})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Run("table inet t { chain c { type filter hook forward priority 0; policy drop; ct state new accept; }\n}\n", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	// A kernel that has it built in has no such module.
	if _, err := n.Run("", "modprobe", "br_netfilter"); err != nil {
		t.Log(err)
	}
	if err := n.CallIPTables(true); err != nil {
		t.Fatal(err)
	}
	for _, vip := range []string{"10.0.0.1", "2001:db8::1"} {
		f := Flow{Source: from, Destination: to, Client: netip.MustParseAddr("198.18.0.0"), VIP: netip.MustParseAddr(vip), VIPs: 7, Port: 80, Ports: 3}
		if f.v6() {
			f.Client = netip.MustParseAddr("2001:db8:c::")
		}
		p, err := Load(f)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, err := (Passage{Bridge: b, From: "left", To: "right", Program: p}).Cost(640); err != nil {
			t.Errorf("to %s: %v", vip, err)
		}
	}
}
