package announce

import (
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// Spec is what a director announces, and how.
type Spec struct {
	Hostname string
	Announce policy.Announce
	VIPs     []netip.Addr // all that the policy knows, on the loopback now or not
}

// Of is what a director with such a state announces. One that is drained still speaks with its routers and announces nothing, so
// that its VIPs stay on its loopback for the connections that it has. One of a pair stays in its virtual routers, and has none of them.
func Of(in policy.Inside, a policy.Announce) Spec {
	s := Spec{Hostname: in.Hostname, Announce: a}
	for _, v := range in.VIPs {
		if !a.Drained || a.VRRP != nil {
			s.VIPs = append(s.VIPs, v.Address)
		}
	}
	return s
}

// Ready picks those VIPs that the director may have, of those that are on its loopback.
func (s Spec) Ready(loopback []netip.Addr) map[netip.Addr]bool {
	ready := map[netip.Addr]bool{}
	for _, v := range s.VIPs {
		ready[v] = !s.Announce.Drained && slices.Contains(loopback, v)
	}
	return ready
}

// Protocol is the name of what s announces by: ospf, bgp, vrrp, or empty.
func (s Spec) Protocol() string {
	switch {
	case s.Announce.OSPF != nil:
		return "ospf"
	case s.Announce.BGP != nil:
		return "bgp"
	case s.Announce.VRRP != nil:
		return "vrrp"
	}
	return ""
}

const (
	zebra      = "zebra"      // the daemon that FRR's others speak to
	keepalived = "keepalived" // the daemon of VRRP, which needs no other
)

// Daemons are the programs that s needs, in the order in which they start: zebra, which the others speak to, first.
func (s Spec) Daemons() []string {
	var d []string
	switch {
	case s.Announce.OSPF != nil:
		d = []string{zebra, "ospfd", "ospf6d"}
	case s.Announce.BGP != nil:
		d = []string{zebra, "bgpd"}
	case s.Announce.VRRP != nil:
		return []string{keepalived}
	default:
		return nil
	}
	if s.Announce.Watched().Enabled() {
		// After zebra, before those that ask it for sessions.
		d = slices.Insert(d, 1, "bfdd")
	}
	return d
}

// byFamily returns the addresses of one family, sorted, each once.
func byFamily(addrs []netip.Addr, ipv6 bool) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is6() == ipv6 {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
