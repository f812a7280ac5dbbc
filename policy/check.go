package policy

import (
	"slices"
	"strconv"
)

// Check judges what the entries say of each other: references, address plans, roles, zones and combinations. It reports every
// mistake, each with its place, and the other place of a clash. It is a method because Check, the type, is a health check.
func (f *Fleet) Check() Diagnostics {
	c := &checker{reporter: reporter{sources: f.sources}, f: f}
	c.references()
	return c.done()
}

// checker holds what the parts of one check share.
type checker struct {
	reporter
	f *Fleet
}

// known reports a reference to a name that is not there.
func known[N ~string, T any](c *checker, index map[N]*T, ref at[N], kind, of string) *T {
	if !ref.written() {
		return nil
	}
	if x := index[ref.V]; x != nil {
		return x
	}
	names := make([]string, 0, len(index))
	for n := range index {
		names = append(names, string(n))
	}
	slices.Sort(names)
	hint := ""
	if near := nearest(string(ref.V), names); near != "" {
		hint = "did you mean " + strconv.Quote(near) + "?"
	}
	c.errorf(ref.Pos, hint, "%s: no %s %s", of, kind, ref.V)
	return nil
}

// references finds names that are not there.
func (c *checker) references() {
	x := &c.f.index
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		of := "network " + string(n.Name)
		known(c, x.zones, n.doc.Zone, "zone", of)
		for _, s := range n.doc.Sites {
			known(c, x.sites, s, "site", of)
		}
	}
	for i := range c.f.Blades {
		b := &c.f.Blades[i]
		of := "blade " + string(b.Name)
		known(c, x.zones, b.doc.Zone, "zone", of)
		known(c, x.sites, b.doc.Site, "site", of)
	}
	for i := range c.f.Services {
		s := &c.f.Services[i]
		of := "service " + string(s.Name)
		known(c, x.zones, s.doc.Zone, "zone", of)
		known(c, x.realServers, s.doc.Sorry, "real server", of)
	}
	for i := range c.f.Directors {
		g := &c.f.Directors[i]
		of := "director " + string(g.Name)
		known(c, x.blades, g.doc.Blade, "blade", of)
		c.attachmentReference(g.Eth0, of)
		c.attachmentReference(g.Eth1, of)
	}
	for i := range c.f.RealServers {
		g := &c.f.RealServers[i]
		of := "real server " + string(g.Name)
		known(c, x.blades, g.doc.Blade, "blade", of)
		c.attachmentReference(g.Eth0, of)
		c.attachmentReference(g.Eth1, of)
		for _, s := range g.Serves {
			known(c, x.services, at[ServiceName]{s.Service, s.Pos}, "service", of)
		}
	}
}

func (c *checker) attachmentReference(a Attachment, of string) {
	known(c, c.f.index.networks, a.doc.Network, "network", of)
}
