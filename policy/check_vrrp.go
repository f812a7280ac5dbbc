package policy

import (
	"net/netip"
	"slices"
	"time"
)

// Bounds of VRRP's advertisement interval, which the protocol counts in hundredths of a second (RFC 5798, section 5.2.7).
const (
	shortestAdvert = 100 * time.Millisecond
	longestAdvert  = 40 * time.Second
	advertUnit     = 10 * time.Millisecond
)

// mostAdverts bounds what a pair says in a second: what a port sends to groups is limited, and a pair that has no room left for an
// advertisement loses its VIPs.
const mostAdverts = 100

// pair is who announces a zone's VIPs by VRRP: those of its directors that say so, in the order of the files.
type pair struct {
	network   *Network // that of the first one's eth0; nil when there is none of that name
	directors []*Director
	routers   map[vipRouter]at[netip.Addr]
}

// vipRouter is a virtual router on one network: the families count theirs apart.
type vipRouter struct {
	v4 bool
	id int
}

// oneProtocol refuses a director that announces twice over.
func (c *checker) oneProtocol(of string, a announceDoc) {
	var said []at[string]
	if a.OSPF != nil {
		said = append(said, at[string]{"OSPF", a.OSPF.Pos})
	}
	if a.BGP != nil {
		said = append(said, at[string]{"BGP", a.BGP.Pos})
	}
	if a.VRRP != nil {
		said = append(said, at[string]{"VRRP", a.VRRP.Pos})
	}
	for _, s := range said[min(1, len(said)):] {
		c.clash(s.Pos, said[0].Pos, said[0].V, "choose one", "%s announces by %s and by %s", of, said[0].V, s.V)
	}
}

// advertising checks the times of one director's VRRP.
func (c *checker) advertising(of string, v *vrrpDoc) {
	switch d := v.Interval; {
	case !d.written():
	case d.V < shortestAdvert || d.V > longestAdvert:
		c.errorf(d.Pos, "from "+short(shortestAdvert)+" to "+short(longestAdvert), "%s: interval %s is out of range", of, short(d.V))
	case d.V%advertUnit != 0:
		c.errorf(d.Pos, "it is kept in hundredths of a second", "%s: interval %s is not a whole number of hundredths", of, d.V)
	}
}

// pairs checks who announces by VRRP in each zone. Every director has all VIPs of its zone, so that there is one pair in it and nobody else.
func (c *checker) pairs() {
	c.pair = map[ZoneName]pair{}
	ordered := make([]*Director, len(c.f.Directors))
	for i := range c.f.Directors {
		ordered[i] = &c.f.Directors[i]
	}
	slices.SortFunc(ordered, func(a, b *Director) int { return comparePos(a.Pos, b.Pos) })
	for _, d := range ordered {
		if b := c.f.Blade(d.Blade); b != nil && d.VRRP != nil {
			p := c.pair[b.Zone]
			if p.directors == nil {
				p.network, p.routers = c.f.Network(d.Eth0.Network), map[vipRouter]at[netip.Addr]{}
			}
			p.directors = append(p.directors, d)
			c.pair[b.Zone] = p
		}
	}
	for _, d := range ordered {
		b := c.f.Blade(d.Blade)
		if b == nil {
			continue
		}
		if p, ok := c.pair[b.Zone]; ok {
			c.inPair(d, p)
		}
	}
}

// inPair checks one director of a zone in which VRRP announces.
func (c *checker) inPair(d *Director, p pair) {
	of, first := "director "+string(d.Name), p.directors[0]
	v, w := d.doc.Announce.VRRP, first.doc.Announce.VRRP
	switch i := slices.Index(p.directors, d); {
	case i < 0 && !d.announces():
	case i < 0:
		c.clash(d.announce, w.Pos, string(first.Name), "announce: none",
			"%s: %s announces the VIPs of the zone by VRRP, and so nobody announces them otherwise", of, first.Name)
	case i == 0 && len(p.directors) == 1:
		c.warnf(v.Pos, "a second director in its uplink network, with another priority", "%s announces by VRRP alone: nobody takes its VIPs over", of)
	case i == 0:
	case i > 1:
		c.clash(v.Pos, w.Pos, string(first.Name), "a virtual router has two directors", "%s: %s and %s announce the VIPs of the zone already", of, first.Name, p.directors[1].Name)
	case d.Eth0.Network != first.Eth0.Network:
		c.clash(d.Eth0.Pos, first.Eth0.Pos, string(first.Name), "the two hear each other in one network", "%s and %s announce by VRRP in different networks", of, first.Name)
	default:
		c.beside(of, d, first)
	}
}

// beside checks the second director of a pair against the first.
func (c *checker) beside(of string, d, first *Director) {
	v, w := d.doc.Announce.VRRP, first.doc.Announce.VRRP
	place := func(p, whole Pos) Pos {
		if p.Line == 0 {
			return whole
		}
		return p
	}
	if d.VRRP.Priority == first.VRRP.Priority && v.Priority.written() && w.Priority.written() {
		c.clash(v.Priority.Pos, w.Priority.Pos, string(first.Name), "the higher one has the VIPs", "%s and %s have the same priority, %d", of, first.Name, d.VRRP.Priority)
	}
	if d.VRRP.ID != first.VRRP.ID {
		c.clash(place(v.ID.Pos, v.Pos), place(w.ID.Pos, w.Pos), string(first.Name), "both are one virtual router", "%s has id %d and %s has %d", of, d.VRRP.ID, first.Name, first.VRRP.ID)
	}
	if d.VRRP.Interval != first.VRRP.Interval {
		c.clash(place(v.Interval.Pos, v.Pos), place(w.Interval.Pos, w.Pos), string(first.Name), "each waits for the other's advertisements",
			"%s has interval %s and %s has %s", of, short(d.VRRP.Interval), first.Name, short(first.VRRP.Interval))
	}
}

// pairVIP checks a VIP that is announced by VRRP: a host's address of the uplink, with a virtual router of its own.
func (c *checker) pairVIP(of string, v at[netip.Addr], p pair) {
	if p.network == nil {
		return // reported already
	}
	first := p.directors[0]
	if !c.inSubnet(p.network, v, of+": "+string(first.Name)+" announces by VRRP: VIP") {
		return
	}
	for _, d := range p.directors[:min(2, len(p.directors))] {
		if _, ok := firstOf(d.Eth0.Addresses, v.V.Is4()); !ok && len(d.Eth0.Addresses) > 0 {
			c.clash(v.Pos, d.Eth0.Pos, string(d.Name), "give it an address of the family", "%s: VIP %s, and director %s has no %s address on eth0", of, v.V, d.Name, familyName(v.V.Is4()))
		}
	}
	id := first.VRRP.Router(v.V)
	if id < 1 || id > 255 {
		c.clash(v.Pos, first.doc.Announce.VRRP.Pos, string(first.Name), "the last byte of the address and id, from 1 to 255 together",
			"%s: VIP %s would be virtual router %d", of, v.V, id)
		return
	}
	key := vipRouter{v.V.Is4(), id}
	if o, ok := p.routers[key]; ok {
		if o.V != v.V {
			c.clash(v.Pos, o.Pos, o.V.String(), "VIPs of one family differ in the last byte", "%s: VIP %s would be virtual router %d, as %s is", of, v.V, id, o.V)
		}
		return
	}
	p.routers[key] = v
	if most := int(first.VRRP.Interval * mostAdverts / time.Second); len(p.routers) == most+1 {
		c.clash(v.Pos, first.doc.Announce.VRRP.Pos, string(first.Name), "a longer interval",
			"%s: VIP %s is one more than the %s that can be announced each %s", of, v.V, plural(most, "VIP"), short(first.VRRP.Interval))
	}
}
