package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// networks checks each network by itself.
func (c *checker) networks() {
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		of := "network " + string(n.Name)
		known(c, c.f.index.zones, n.doc.Zone, "zone", of)
		seen := map[SiteName]Pos{}
		for _, s := range n.doc.Sites {
			known(c, c.f.index.sites, s, "site", of)
			if first, ok := seen[s.V]; ok {
				c.clash(s.Pos, first, "first written here", "", "%s: site %s twice", of, s.V)
			}
			seen[s.V] = s.Pos
		}
		if n.doc.Sites != nil && len(n.doc.Sites) == 0 {
			c.errorf(n.Pos, "leave sites out: the network is carried everywhere then", "%s is carried to no site", of)
		}
		if n.doc.Subnets != nil && len(n.doc.Subnets) == 0 {
			c.errorf(n.Pos, "", "%s has an empty list of subnets", of)
		}
		for _, s := range n.doc.Subnets {
			c.subnet(of, s)
		}
		c.routers(n)
	}
}

// subnet refuses prefixes that no network of guests can have.
func (c *checker) subnet(of string, s at[netip.Prefix]) {
	a, bits := s.V.Addr(), s.V.Bits()
	switch {
	case !unicast(a) && bits > 0:
		c.errorf(s.Pos, "", "%s: %s holds no addresses of hosts", of, s.V)
	case a.Is4() && bits < 8 || a.Is6() && bits < 16:
		c.errorf(s.Pos, "", "%s: %s is too wide for one network", of, s.V)
	case a.Is4() && bits > 31 || a.Is6() && bits > 127:
		c.errorf(s.Pos, "", "%s: %s has no room for two addresses", of, s.V)
	}
}

// unicast reports whether an address can be a host's, known beyond its link.
func unicast(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// routers checks a network's routers and asks for them where guests need them.
func (c *checker) routers(n *Network) {
	of := "network " + string(n.Name)
	needs := n.Role == NetworkUplink || n.Role == NetworkReturn
	if needs && len(n.doc.Routers) == 0 {
		c.errorf(n.Pos, "routers: [192.0.2.1, \"2001:db8::1\"]", "%s has the role %s and no routers", of, n.Role)
		return
	}
	for _, v4 := range []bool{true, false} {
		i := slices.IndexFunc(n.doc.Subnets, func(s at[netip.Prefix]) bool { return s.V.Addr().Is4() == v4 })
		if _, ok := firstOf(n.Routers, v4); needs && i >= 0 && !ok && len(n.Routers) > 0 {
			c.warnf(n.doc.Subnets[i].Pos, "add a router of the family, or remove the subnet",
				"%s has no router for %s: its guests get no default route in that family", of, familyName(v4))
		}
	}
	for _, r := range n.doc.Routers {
		c.inSubnet(n, r, of+": router")
	}
}

func familyName(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// inSubnet checks that an address lies in a subnet of a network and is a host's there.
func (c *checker) inSubnet(n *Network, a at[netip.Addr], what string) bool {
	i := slices.IndexFunc(n.doc.Subnets, func(s at[netip.Prefix]) bool { return s.V.Contains(a.V) })
	if i < 0 {
		if len(n.doc.Subnets) > 0 {
			c.clash(a.Pos, n.doc.Subnets[0].Pos, "its subnets", "", "%s %s lies outside network %s", what, a.V, n.Name)
		}
		return false
	}
	s := n.doc.Subnets[i]
	if s.V.Bits() >= s.V.Addr().BitLen()-1 {
		return true
	}
	switch a.V {
	case s.V.Addr():
		c.clash(a.Pos, s.Pos, "the subnet", "", "%s %s is the address of the network itself", what, a.V)
		return false
	case lastAddr(s.V):
		if a.V.Is4() {
			c.clash(a.Pos, s.Pos, "the subnet", "", "%s %s is the broadcast address of network %s", what, a.V, n.Name)
			return false
		}
	}
	return true
}

// lastAddr returns the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// vlans finds two networks with one VLAN at one site: on one trunk they would be one, and in two zones they would join them.
func (c *checker) vlans() {
	type spot struct {
		id   VLANID
		site SiteName
	}
	first, everywhere, anywhere := map[spot]*Network{}, map[VLANID]*Network{}, map[VLANID]*Network{}
	ordered := make([]*Network, len(c.f.Networks))
	for i := range c.f.Networks {
		ordered[i] = &c.f.Networks[i]
	}
	slices.SortFunc(ordered, func(a, b *Network) int { return comparePos(a.Pos, b.Pos) })
	for _, n := range ordered {
		if n.VLAN == 0 {
			continue
		}
		o := everywhere[n.VLAN]
		if n.Sites == nil {
			o = anywhere[n.VLAN]
			everywhere[n.VLAN] = n
		}
		for _, s := range n.Sites {
			if o == nil {
				o = first[spot{n.VLAN, s}]
			}
			first[spot{n.VLAN, s}] = n
		}
		anywhere[n.VLAN] = n
		if o != nil && o != n {
			c.sameVLAN(o, n)
		}
	}
}

func (c *checker) sameVLAN(first, second *Network) {
	hint := "a trunk carries a VLAN once"
	if first.Zone != second.Zone {
		hint = "zones share no VLAN"
	}
	c.clash(second.doc.VLAN.Pos, first.doc.VLAN.Pos, "network "+string(first.Name), hint,
		"networks %s and %s have the same VLAN %d and meet at a site", first.Name, second.Name, second.VLAN)
}

// placed is a prefix of a network with its place.
type placed struct {
	at[netip.Prefix]
	network *Network
}

// subnets finds overlaps over the whole fleet. Prefixes nest or are apart, so that in order of address and length each one
// that overlaps lies in one of those on the stack.
func (c *checker) subnets() {
	var all, stack []placed
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		for _, s := range n.doc.Subnets {
			all = append(all, placed{s, n})
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(comparePrefix(a.V, b.V), comparePos(a.Pos, b.Pos))
	})
	for _, s := range all {
		for len(stack) > 0 && !stack[len(stack)-1].V.Overlaps(s.V) {
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 0 {
			o := stack[len(stack)-1]
			first, second := o, s
			if comparePos(s.Pos, o.Pos) < 0 {
				first, second = s, o
			}
			c.clash(second.Pos, first.Pos, "network "+string(first.network.Name), "no two subnets overlap, in the whole fleet",
				"network %s: %s overlaps %s", second.network.Name, second.V, first.V)
		}
		stack = append(stack, s)
	}
}

// subnetIndex finds the subnet that an address lies in.
type subnetIndex struct {
	byPrefix map[netip.Prefix]placed
	lengths  []netip.Prefix // one of each family and length in use
}

func (c *checker) subnetIndex() subnetIndex {
	x := subnetIndex{byPrefix: map[netip.Prefix]placed{}}
	type length struct {
		v4   bool
		bits int
	}
	seen := map[length]bool{}
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		for _, s := range n.doc.Subnets {
			x.byPrefix[s.V] = placed{s, n}
			if l := (length{s.V.Addr().Is4(), s.V.Bits()}); !seen[l] {
				seen[l] = true
				x.lengths = append(x.lengths, s.V)
			}
		}
	}
	return x
}

func (x subnetIndex) find(a netip.Addr) (placed, bool) {
	for _, l := range x.lengths {
		if l.Addr().Is4() != a.Is4() {
			continue
		}
		p, err := a.Prefix(l.Bits())
		if s, ok := x.byPrefix[p]; ok && err == nil {
			return s, true
		}
	}
	return placed{}, false
}
