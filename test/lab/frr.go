package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// frrConfigs is the router's FRR (frr.conf(5)) as one file per daemon, in the order in which they are started.
func (t topology) frrConfigs() []frrConfig {
	return []frrConfig{
		{"zebra", "hostname router\nip forwarding\nipv6 forwarding\n"},
		{"bfdd", t.bfdConfig()},
		{"ospfd", t.ospfConfig()},
		{"ospf6d", t.ospf6Config()},
		{"bgpd", t.bgpConfig()},
	}
}

// frrConfig is the configuration of one daemon.
type frrConfig struct {
	daemon string
	text   string
}

// bfdConfig slows BFD down where the processor is emulated: it stands still for two seconds when others are busy, and FRR's
// three times 300 ms would make every session flap. Both sides keep to the slower one's intervals (RFC 5880, section 6.8.4).
func (t topology) bfdConfig() string {
	b := frrText("hostname router")
	b.line("bfd")
	if t.Emulated {
		b.line(" profile emulated")
		b.line("  detect-multiplier 5")
		b.line("  receive-interval 1000")
		b.line("  transmit-interval 1000")
	}
	return b.String()
}

func (t topology) bfdProfile() string {
	if t.Emulated {
		return " profile emulated"
	}
	return ""
}

// routerID is the router's first IPv4 address.
func (t topology) routerID() string {
	for _, n := range t.Networks {
		for _, a := range n.Addresses {
			if a.Addr().Is4() {
				return a.Addr().String()
			}
		}
	}
	return router4
}

func has(n routedNetwork, is func(netip.Addr) bool) bool {
	for _, a := range n.Addresses {
		if is(a.Addr()) {
			return true
		}
	}
	return false
}

func (t topology) ospfConfig() string {
	b := frrText("hostname router")
	for _, n := range t.Networks {
		if n.OSPF == nil || !has(n, netip.Addr.Is4) {
			continue
		}
		b.line("interface vlan%d", n.VLAN)
		b.line(" ip ospf area %s", n.OSPF.Area)
		b.line(" ip ospf hello-interval %d", n.OSPF.Hello)
		b.line(" ip ospf dead-interval %d", n.OSPF.Dead)
		b.line(" ip ospf priority 100")
		b.line(" ip ospf retransmit-interval 1")
		if n.OSPF.BFD {
			b.line(" ip ospf bfd%s", t.bfdProfile())
		}
	}
	b.line("router ospf")
	b.line(" ospf router-id %s", t.routerID())
	b.line(" timers throttle spf 0 50 500")
	return b.String()
}

func (t topology) ospf6Config() string {
	b := frrText("hostname router")
	for _, n := range t.Networks {
		if n.OSPF == nil || !has(n, netip.Addr.Is6) {
			continue
		}
		b.line("interface vlan%d", n.VLAN)
		b.line(" ipv6 ospf6 area %s", n.OSPF.Area)
		b.line(" ipv6 ospf6 hello-interval %d", n.OSPF.Hello)
		b.line(" ipv6 ospf6 dead-interval %d", n.OSPF.Dead)
		b.line(" ipv6 ospf6 priority 100")
		b.line(" ipv6 ospf6 retransmit-interval 1")
		if n.OSPF.BFD {
			b.line(" ipv6 ospf6 bfd%s", t.bfdProfile())
		}
	}
	b.line("router ospf6")
	b.line(" ospf6 router-id %s", t.routerID())
	b.line(" timers throttle spf 0 50 500")
	return b.String()
}

// bgpConfig lets the router answer any director of an uplink that opens a session.
func (t topology) bgpConfig() string {
	b := frrText("hostname router")
	as := uint32(0)
	for _, n := range t.Networks {
		if n.BGP != nil && as == 0 {
			as = n.BGP.AS
		}
	}
	if as == 0 {
		return b.String()
	}
	b.line("router bgp %d", as)
	b.line(" bgp router-id %s", t.routerID())
	b.line(" no bgp default ipv4-unicast")
	b.line(" no bgp ebgp-requires-policy")
	b.line(" timers bgp 1 3")
	var groups []string
	for _, n := range t.Networks {
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
		if n.BGP.BFD {
			b.line(" neighbor %s bfd%s", group, t.bfdProfile())
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
