package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Check judges what the entries say of each other: references, address plans, roles, zones and combinations. It reports every
// mistake, each with its place, and the other place of a clash. It is a method because Check, the type, is a health check.
func (f *Fleet) Check() Diagnostics {
	c := &checker{reporter: reporter{sources: f.sources}, f: f}
	c.networks()
	c.vlans()
	c.subnets()
	c.blades()
	c.names()
	c.identities()
	c.addresses()
	c.directors()
	c.pairs()
	c.realServers()
	c.vips()
	c.services()
	c.rules()
	c.hosts()
	c.alerts()
	c.expectations()
	return c.done()
}

// checker holds what the parts of one check share.
type checker struct {
	reporter
	f     *Fleet
	held  map[netip.Addr]holder // who has which address
	pair  map[ZoneName]pair     // who announces by VRRP
	hints int
}

// known looks a reference up and reports one to a name that is not there. A name that was never written is no finding here.
func known[N ~string, T any](c *checker, index map[N]*T, ref at[N], kind, of string) *T {
	if !ref.written() {
		return nil
	}
	if x := index[ref.V]; x != nil {
		return x
	}
	hint := ""
	if c.mayHint() {
		names := make([]string, 0, len(index))
		for n := range index {
			names = append(names, string(n))
		}
		slices.Sort(names)
		switch near := nearest(string(ref.V), names); {
		case near != "":
			hint = "did you mean " + strconv.Quote(near) + "?"
		case len(names) == 0:
			hint = "the policy has no " + kind + " at all"
		case len(names) <= 12:
			hint = "there is " + list(names)
		}
	}
	c.errorf(ref.Pos, hint, "%s: there is no %s %s", of, kind, ref.V)
	return nil
}

// mostHints bounds how often every name is compared with one that is not there.
const mostHints = 50

func (c *checker) mayHint() bool {
	c.hints++
	return c.hints <= mostHints
}

// list joins names for a person.
func list(names []string) string {
	switch n := len(names); n {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	default:
		out := names[0]
		for _, s := range names[1 : n-1] {
			out += ", " + s
		}
		return out + " and " + names[n-1]
	}
}

// blades checks where blades stand and their NICs.
func (c *checker) blades() {
	for i := range c.f.Blades {
		b := &c.f.Blades[i]
		of := "blade " + string(b.Name)
		known(c, c.f.index.zones, b.doc.Zone, "zone", of)
		known(c, c.f.index.sites, b.doc.Site, "site", of)
		trunk, management := b.doc.Trunk, b.doc.Management
		if trunk.written() && management.written() && trunk.V == management.V {
			c.clash(management.Pos, trunk.Pos, "the trunk", "a guest's VLAN must never reach the blade's own address",
				"%s: trunk and management on one NIC, %s", of, trunk.V)
		}
		for _, nic := range []at[nicName]{trunk, management} {
			if nic.V == "lo" {
				c.errorf(nic.Pos, "", "%s: lo is no NIC", of)
			}
		}
	}
}

// names finds guests that share a name with another guest, with a blade, or with a word of the rules.
func (c *checker) names() {
	for i := range c.f.RealServers {
		g := &c.f.RealServers[i]
		if d := c.f.Director(g.Name); d != nil {
			first, second, kind := d.Pos, g.Pos, "director"
			if comparePos(second, first) < 0 {
				first, second, kind = second, first, "real server"
			}
			c.clash(second, first, "the "+kind, "a guest's name is unique over directors and real servers", "guest %s twice", g.Name)
		}
	}
	for _, g := range c.f.Guests() {
		if b := c.f.Blade(BladeName(g.Name)); b != nil {
			c.clash(g.Pos, b.Pos, "the blade", "both would be the host name", "guest %s has the name of a blade", g.Name)
		}
		switch g.Name {
		case "any", "directors", "realservers", "none":
			c.errorf(g.Pos, "", "a guest named %s: the word means something else in rules", g.Name)
		}
	}
}

// identities finds guests whose derived port names, MACs or context identifiers collide, and NICs that carry a derived name.
func (c *checker) identities() {
	type port struct {
		blade BladeName
		name  string
	}
	type cid struct {
		blade BladeName
		id    uint32
	}
	collide := func(a, b *GuestEntry, hint, what string) {
		if comparePos(b.Pos, a.Pos) < 0 {
			a, b = b, a
		}
		c.clash(b.Pos, a.Pos, "the other guest", hint, "guests %s and %s would have the same %s", a.Name, b.Name, what)
	}
	guests := c.f.Guests()
	ports, macs, cids := make(map[port]*GuestEntry, len(guests)), make(map[MAC]*GuestEntry, 2*len(guests)), map[cid]*GuestEntry{}
	for i := range guests {
		g := &guests[i]
		name := port{g.Blade, PortName(g.Name, "eth0")}
		if o, ok := ports[name]; ok && o.Name != g.Name {
			collide(o, g, "rename one of them: a long name is cut to six letters and a digest", "port, "+name.name)
		}
		ports[name] = g
		for _, mac := range g.macs {
			if o, ok := macs[mac]; ok && o.Name != g.Name {
				collide(o, g, "rename one of them: a MAC is derived from the name", "MAC, "+mac.String())
			}
			macs[mac] = g
		}
		if g.Driver != DriverKVM {
			continue
		}
		id := cid{g.Blade, CIDOf(g.Name)}
		if o, ok := cids[id]; ok && o.Name != g.Name {
			collide(o, g, "rename one of them: the identifier is derived from the name", "vsock context identifier, "+itoa(int64(id.id)))
		}
		cids[id] = g
	}
	for i := range c.f.Blades {
		b := &c.f.Blades[i]
		for _, nic := range []at[nicName]{b.doc.Trunk, b.doc.Management} {
			g, isPort := ports[port{b.Name, string(nic.V)}]
			if isPort && nic.written() {
				c.clash(nic.Pos, g.Pos, "the guest", "", "blade %s: NIC %s has the name of a port of guest %s", b.Name, nic.V, g.Name)
			}
			if n := c.linkOf(b, string(nic.V)); n != nil && nic.written() {
				c.clash(nic.Pos, n.Pos, "the network", "", "blade %s: NIC %s has the name of a link of network %s", b.Name, nic.V, n.Name)
			}
		}
	}
}

// linkOf returns the network on a blade whose VLAN link or bridge has that name.
func (c *checker) linkOf(b *BladeEntry, name string) *Network {
	if !strings.HasPrefix(name, "vlan") && !strings.HasPrefix(name, "br") {
		return nil
	}
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		if n.Zone == b.Zone && n.at(b.Site) && (name == VLANLink(n.VLAN) || name == BridgeName(n.VLAN)) {
			return n
		}
	}
	return nil
}
