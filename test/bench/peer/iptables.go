package peer

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Guarded is what peers need to know of a guest's port: who may speak from it and who may be spoken to there.
type Guarded struct {
	Port string
	MAC  policy.MAC
	Own  []netip.Addr // addresses, VIPs aside
	Open []Opened
}

// Opened is a VIP that a port serves.
type Opened struct {
	VIP   netip.Addr
	Ports []uint16 // of TCP
}

// IPTables writes a ruleset for iptables-restore, in IPv4: NOTRACK for VIPs by address, for each guest a chain of what it may say and
// one of what it may hear, reached by the name of its port. Several ports of one VIP share a rule.
func IPTables(vips []netip.Addr, guests []Guarded) string {
	var b strings.Builder
	b.WriteString("*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n")
	for _, v := range vips {
		fmt.Fprintf(&b, "-A PREROUTING -d %s -j CT --notrack\n-A PREROUTING -s %s -j CT --notrack\n", v, v)
	}
	b.WriteString("COMMIT\n")
	filter(&b, guests, func(in, out *strings.Builder, i int, g Guarded) {
		for _, o := range g.Open {
			var ports []string
			for _, p := range o.Ports {
				ports = append(ports, fmt.Sprint(p))
			}
			list := strings.Join(ports, ",")
			fmt.Fprintf(in, "-A in%d -d %s -p tcp -m multiport --dports %s -j ACCEPT\n", i, o.VIP, list)
			fmt.Fprintf(out, "-A out%d -m mac --mac-source %s -s %s -p tcp -m multiport --sports %s -j ACCEPT\n", i, g.MAC, o.VIP, list)
		}
	})
	return b.String()
}

// IPSets writes sets for ipset restore and a ruleset that uses them for VIPs and services: only guests remain a list.
func IPSets(vips []netip.Addr, guests []Guarded) (sets, rules string) {
	var s, b strings.Builder
	s.WriteString("create vips hash:ip\n")
	for _, v := range vips {
		fmt.Fprintf(&s, "add vips %s\n", v)
	}
	b.WriteString("*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n-A PREROUTING -m set --match-set vips dst -j CT --notrack\n-A PREROUTING -m set --match-set vips src -j CT --notrack\nCOMMIT\n")
	filter(&b, guests, func(in, out *strings.Builder, i int, g Guarded) {
		fmt.Fprintf(&s, "create open%d hash:ip,port maxelem 131072\n", i)
		for _, o := range g.Open {
			for _, p := range o.Ports {
				fmt.Fprintf(&s, "add open%d %s,tcp:%d\n", i, o.VIP, p)
			}
		}
		fmt.Fprintf(in, "-A in%d -m set --match-set open%d dst,dst -j ACCEPT\n", i, i)
		fmt.Fprintf(out, "-A out%d -m mac --mac-source %s -m set --match-set open%d src,src -j ACCEPT\n", i, g.MAC, i)
	})
	return s.String(), b.String()
}

// filter writes the table of that name: the lists over guests, and chains that rules of one guest fill.
func filter(b *strings.Builder, guests []Guarded, rules func(in, out *strings.Builder, i int, g Guarded)) {
	var chains, dispatch, in, out strings.Builder
	for i, g := range guests {
		fmt.Fprintf(&chains, ":in%d -\n:out%d -\n", i, i)
		fmt.Fprintf(&dispatch, "-A FORWARD -m physdev --physdev-is-bridged --physdev-in %s -j out%d\n", g.Port, i)
		fmt.Fprintf(&dispatch, "-A FORWARD -m physdev --physdev-is-bridged --physdev-out %s -j in%d\n", g.Port, i)
		for _, a := range g.Own {
			if a.Is4() {
				fmt.Fprintf(&in, "-A in%d -d %s -j ACCEPT\n", i, a)
				fmt.Fprintf(&out, "-A out%d -m mac --mac-source %s -s %s -j ACCEPT\n", i, g.MAC, a)
			}
		}
		rules(&in, &out, i, g)
		fmt.Fprintf(&in, "-A in%d -j DROP\n", i)
		fmt.Fprintf(&out, "-A out%d -j DROP\n", i)
	}
	fmt.Fprintf(b, "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n%s%s%s%sCOMMIT\n", &chains, &dispatch, &in, &out)
}
