package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// frrConfigs is the FRR (frr.conf(5)) of a site's router as one file per daemon, in the order in which they are started.
func (t topology) frrConfigs(s site) []frrConfig {
	return []frrConfig{
		{"zebra", "hostname " + s.router() + "\nip forwarding\nipv6 forwarding\n"},
		{"bfdd", t.bfdConfig(s)},
		{"ospfd", t.ospfConfig(s)},
		{"ospf6d", t.ospf6Config(s)},
		{"bgpd", s.bgpConfig()},
	}
}

// frrConfig is the configuration of one daemon.
type frrConfig struct {
	daemon string
	text   string
}

// bfdConfig sets the pace of each network that BFD runs on. The usual pace is slowed down where the processor is emulated: it stands still for
// two seconds when others are busy, and three times 300 ms would make every session flap. Both sides keep to the slower one's
// intervals (RFC 5880, section 6.8.4). A fleet that names another pace has it.
func (t topology) bfdConfig(s site) string {
	b := frrText("hostname " + s.router())
	b.line("bfd")
	for _, n := range s.Networks {
		pace := n.watched()
		if !pace.Enabled() {
			continue
		}
		if t.Emulated && pace == usualBFD {
			pace = policy.BFD{Interval: time.Second, Multiplier: 5}
		}
		b.line(" profile vlan%d", n.VLAN)
		b.line("  detect-multiplier %d", pace.Multiplier)
		b.line("  receive-interval %d", pace.Interval.Milliseconds())
		b.line("  transmit-interval %d", pace.Interval.Milliseconds())
	}
	return b.String()
}

// watched is BFD's pace on a network: directors that announce by OSPF decide before those that announce by BGP.
func (n routedNetwork) watched() policy.BFD {
	if n.OSPF != nil && n.OSPF.BFD.Enabled() {
		return n.OSPF.BFD
	}
	if n.BGP != nil {
		return n.BGP.BFD
	}
	return policy.BFD{}
}

// routerID is the router's first IPv4 address.
func (s site) routerID() string {
	for _, n := range s.Networks {
		for _, a := range n.Addresses {
			if a.Addr().Is4() {
				return a.Addr().String()
			}
		}
	}
	return s.router4()
}

func has(n routedNetwork, is func(netip.Addr) bool) bool {
	for _, a := range n.Addresses {
		if is(a.Addr()) {
			return true
		}
	}
	return false
}

func (t topology) ospfConfig(s site) string {
	b := frrText("hostname " + s.router())
	for _, n := range s.Networks {
		if n.OSPF == nil || !has(n, netip.Addr.Is4) {
			continue
		}
		b.line("interface vlan%d", n.VLAN)
		b.line(" ip ospf area %s", n.OSPF.Area)
		b.line(" ip ospf hello-interval %d", n.OSPF.Hello)
		b.line(" ip ospf dead-interval %d", n.OSPF.Dead)
		b.line(" ip ospf priority 100")
		b.line(" ip ospf retransmit-interval 1")
		if n.OSPF.BFD.Enabled() {
			b.line(" ip ospf bfd")
			b.line(" ip ospf bfd profile vlan%d", n.VLAN)
		}
	}
	if len(t.Sites) > 1 {
		b.line("interface backbone")
		b.line(" ip ospf area 0.0.0.0")
		b.line(" ip ospf network point-to-multipoint")
		b.line(" ip ospf hello-interval 1")
		b.line(" ip ospf dead-interval 4")
	}
	b.line("router ospf")
	b.line(" ospf router-id %s", s.routerID())
	b.line(" timers throttle spf 0 50 500")
	t.tellOthers(b)
	return b.String()
}

func (t topology) ospf6Config(s site) string {
	b := frrText("hostname " + s.router())
	for _, n := range s.Networks {
		if n.OSPF == nil || !has(n, netip.Addr.Is6) {
			continue
		}
		b.line("interface vlan%d", n.VLAN)
		b.line(" ipv6 ospf6 area %s", n.OSPF.Area)
		b.line(" ipv6 ospf6 hello-interval %d", n.OSPF.Hello)
		b.line(" ipv6 ospf6 dead-interval %d", n.OSPF.Dead)
		b.line(" ipv6 ospf6 priority 100")
		b.line(" ipv6 ospf6 retransmit-interval 1")
		if n.OSPF.BFD.Enabled() {
			b.line(" ipv6 ospf6 bfd profile vlan%d", n.VLAN)
		}
	}
	if len(t.Sites) > 1 {
		b.line("interface backbone")
		b.line(" ipv6 ospf6 area 0.0.0.0")
		b.line(" ipv6 ospf6 hello-interval 1")
		b.line(" ipv6 ospf6 dead-interval 4")
	}
	b.line("router ospf6")
	b.line(" ospf6 router-id %s", s.routerID())
	b.line(" timers throttle spf 0 50 500")
	t.tellOthers(b)
	return b.String()
}

// tellOthers lets the routers of several sites know of each other's networks, users and VIPs. The metric is what makes each prefer
// a director of its own.
func (t topology) tellOthers(b *frrBuilder) {
	if len(t.Sites) < 2 {
		return
	}
	for _, what := range []string{"connected", "kernel", "bgp"} {
		b.line(" redistribute %s metric 100 metric-type 1", what)
	}
}

// bgpConfig lets the router answer any director of an uplink that opens a session.
func (s site) bgpConfig() string {
	b := frrText("hostname " + s.router())
	as := uint32(0)
	for _, n := range s.Networks {
		if n.BGP != nil && as == 0 {
			as = n.BGP.AS
		}
	}
	if as == 0 {
		return b.String()
	}
	b.line("router bgp %d", as)
	b.line(" bgp router-id %s", s.routerID())
	b.line(" no bgp default ipv4-unicast")
	b.line(" no bgp ebgp-requires-policy")
	b.line(" timers bgp 1 3")
	var groups []string
	for _, n := range s.Networks {
		if n.BGP == nil {
			continue
		}
		group := fmt.Sprintf("vlan%d", n.VLAN)
		groups = append(groups, group)
		b.line(" neighbor %s peer-group", group)
		b.line(" neighbor %s remote-as %d", group, n.BGP.PeerAS)
		if n.BGP.AS != as {
			b.line(" neighbor %s local-as %d", group, n.BGP.AS)
		}
		if n.BGP.BFD.Enabled() {
			b.line(" neighbor %s bfd", group)
			b.line(" neighbor %s bfd profile vlan%d", group, n.VLAN)
		}
		for _, a := range n.Addresses {
			b.line(" bgp listen range %s peer-group %s", a.Masked(), group)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		b.line(" address-family %s unicast", family)
		for _, group := range groups {
			b.line("  neighbor %s activate", group)
		}
		b.line(" exit-address-family")
	}
	return b.String()
}

type frrBuilder struct{ strings.Builder }

func frrText(first string) *frrBuilder {
	b := &frrBuilder{}
	b.line("%s", first)
	return b
}

func (b *frrBuilder) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
