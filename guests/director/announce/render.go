package announce

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Names inside the configurations.
const (
	list4  = "bladenet-vips4"
	list6  = "bladenet-vips6"
	noneRM = "bladenet-none"
	pace   = "bladenet"
)

// Render returns each daemon's configuration, by daemon. It is a pure function of s; equal specs have equal texts.
func Render(s Spec) map[string]string {
	out := map[string]string{}
	for _, d := range s.Daemons() {
		var c config
		if d == keepalived {
			c.vrrp(s)
			out[d] = c.String()
			continue
		}
		c.line("! written by bladeguest; changes are lost")
		c.line("frr defaults traditional")
		if s.Hostname != "" {
			c.line("hostname %s", s.Hostname)
		}
		c.line("log stdout warnings")
		c.line("!")
		switch d {
		case "zebra":
			c.zebra(s)
		case "bfdd":
			c.bfd(s.Announce.Watched())
		case "ospfd":
			c.ospf4(s)
		case "ospf6d":
			c.ospf6(s)
		case "bgpd":
			c.bgp(s)
		}
		out[d] = c.String()
	}
	return out
}

type config struct{ strings.Builder }

func (c *config) line(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// zebra keeps every route that a neighbour sends out of the kernel: a director's own routes come from its policy.
func (c *config) zebra(s Spec) {
	c.line("route-map %s deny 10", noneRM)
	c.line("exit")
	c.line("!")
	if s.Announce.OSPF != nil {
		c.line("ip protocol ospf route-map %s", noneRM)
		c.line("ipv6 protocol ospf6 route-map %s", noneRM)
	} else {
		c.line("ip protocol bgp route-map %s", noneRM)
		c.line("ipv6 protocol bgp route-map %s", noneRM)
	}
}

// bfd sets the pace of every session that the others ask for.
func (c *config) bfd(b policy.BFD) {
	c.line("bfd")
	c.line(" profile %s", pace)
	c.line("  detect-multiplier %d", b.Multiplier)
	c.line("  receive-interval %d", b.Interval.Milliseconds())
	c.line("  transmit-interval %d", b.Interval.Milliseconds())
	c.line(" exit")
	c.line("exit")
}

// vips writes the prefix list and the route map that let exactly the VIPs of one family out. The list ends with an explicit
// refusal: FRR takes an empty list for one that permits everything.
func (c *config) vips(s Spec, ipv6 bool) {
	ip, name, any := "ip", list4, "0.0.0.0/0 le 32"
	if ipv6 {
		ip, name, any = "ipv6", list6, "::/0 le 128"
	}
	taken := map[uint32]bool{}
	for _, a := range byFamily(s.VIPs, ipv6) {
		c.line("%s prefix-list %s seq %d permit %s", ip, name, sequence(a, taken), netip.PrefixFrom(a, a.BitLen()))
	}
	c.line("%s prefix-list %s seq %d deny %s", ip, name, lastSequence, any)
	c.line("!")
	c.line("route-map %s permit 10", name)
	c.line(" match %s address prefix-list %s", ip, name)
	c.line("exit")
	c.line("route-map %s deny 20", name)
	c.line("exit")
	c.line("!")
}

// lastSequence is the highest number that FRR takes.
const lastSequence = math.MaxUint32

// sequence is the number of a VIP's line. It follows from the address alone, so that a VIP which comes or goes changes one line
// and no other, which a running daemon can be told.
func sequence(a netip.Addr, taken map[uint32]bool) uint32 {
	raw := a.As16()
	n := binary.BigEndian.Uint32(raw[12:])
	if a.Is6() {
		h := fnv.New32a()
		_, _ = h.Write(raw[:])
		n = h.Sum32()
	}
	for n == 0 || n == lastSequence || taken[n] {
		n++
	}
	taken[n] = true
	return n
}

// ospf4 speaks OSPFv2 on eth0 only; no other interface is in an area. Priority 0: a director never becomes the designated
// router, so its end does not make the segment elect. Metric type 1 adds the way to the director, so the nearest one is taken.
func (c *config) ospf4(s Spec) {
	o := s.Announce.OSPF
	c.line("interface eth0")
	c.line(" ip ospf area %s", o.Area)
	c.line(" ip ospf hello-interval %d", seconds(o.Hello))
	c.line(" ip ospf dead-interval %d", seconds(o.Dead))
	c.line(" ip ospf priority 0")
	c.line(" ip ospf retransmit-interval 1") // FRR's own five seconds are what an adjacency that returns waits for
	if o.BFD.Enabled() {
		c.line(" ip ospf bfd")
		c.line(" ip ospf bfd profile %s", pace)
	}
	c.line("exit")
	c.line("!")
	c.vips(s, false)
	c.line("router ospf")
	c.line(" ospf router-id %s", s.Announce.RouterID)
	// A second is what neighbours accept by default; FRR's own five hold a VIP back that returns.
	c.line(" timers throttle lsa all 1000")
	c.line(" redistribute connected metric 20 metric-type 1 route-map %s", list4)
	c.line("exit")
}

func (c *config) ospf6(s Spec) {
	o := s.Announce.OSPF
	c.line("interface eth0")
	c.line(" ipv6 ospf6 area %s", o.Area)
	c.line(" ipv6 ospf6 hello-interval %d", seconds(o.Hello))
	c.line(" ipv6 ospf6 dead-interval %d", seconds(o.Dead))
	c.line(" ipv6 ospf6 priority 0")
	c.line(" ipv6 ospf6 retransmit-interval 1")
	if o.BFD.Enabled() {
		c.line(" ipv6 ospf6 bfd profile %s", pace)
	}
	c.line("exit")
	c.line("!")
	c.vips(s, true)
	c.line("router ospf6")
	c.line(" ospf6 router-id %s", s.Announce.RouterID)
	c.line(" redistribute connected metric 20 metric-type 1 route-map %s", list6)
	c.line("exit")
}

// bgp has one session with each router, which carries the routes of its own family. The advertisement interval is 0: FRR would
// wait up to half a minute between two updates to an external neighbour.
func (c *config) bgp(s Spec) {
	b := s.Announce.BGP
	c.line("route-map %s deny 10", noneRM)
	c.line("exit")
	c.line("!")
	c.vips(s, false)
	c.vips(s, true)
	c.line("bgp route-map delay-timer 1")
	c.line("router bgp %d", b.AS)
	c.line(" bgp router-id %s", s.Announce.RouterID)
	c.line(" no bgp default ipv4-unicast")
	for _, ipv6 := range []bool{false, true} {
		for _, r := range byFamily(s.Announce.Routers, ipv6) {
			c.neighbor(r, b)
		}
	}
	for _, ipv6 := range []bool{false, true} {
		routers, family, list := byFamily(s.Announce.Routers, ipv6), "ipv4", list4
		if ipv6 {
			family, list = "ipv6", list6
		}
		if len(routers) == 0 {
			continue
		}
		c.line(" !")
		c.line(" address-family %s unicast", family)
		c.line("  redistribute connected route-map %s", list)
		for _, r := range routers {
			c.line("  neighbor %s activate", r)
			c.line("  neighbor %s route-map %s out", r, list)
			c.line("  neighbor %s route-map %s in", r, noneRM)
		}
		c.line(" exit-address-family")
	}
	c.line("exit")
}

func (c *config) neighbor(r netip.Addr, b *policy.BGP) {
	c.line(" neighbor %s remote-as %d", r, b.PeerAS)
	c.line(" neighbor %s timers 3 9", r)
	c.line(" neighbor %s timers connect 5", r)
	c.line(" neighbor %s advertisement-interval 0", r)
	if b.BFD.Enabled() {
		c.line(" neighbor %s bfd", r)
		c.line(" neighbor %s bfd profile %s", r, pace)
	}
}
