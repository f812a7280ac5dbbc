package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// holder is who has an address: a guest's interface, or a router of a network.
type holder struct {
	guest   GuestName
	iface   string
	network NetworkName
	pos     Pos
}

// String names the holder.
func (h holder) String() string {
	if h.guest == "" {
		return "a router of network " + string(h.network)
	}
	return string(h.guest) + " " + h.iface
}

// owned turns `www-l1 eth0` into `that of www-l1 eth0`.
func (h holder) owned() string {
	if h.guest == "" {
		return h.String()
	}
	return "that of " + h.String()
}

// addresses gives every address of a router or guest its holder and reports one that has two.
func (c *checker) addresses() {
	guests := c.f.Guests()
	c.held = make(map[netip.Addr]holder, 4*len(guests))
	take := func(a netip.Addr, h holder) {
		if o, ok := c.held[a]; ok {
			c.taken(a, h, o)
			return
		}
		c.held[a] = h
	}
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		for _, r := range n.doc.Routers {
			take(r.V, holder{network: n.Name, pos: r.Pos})
		}
	}
	for i := range guests {
		g := &guests[i]
		for i, x := range []*interfaceDoc{g.Eth0.doc, g.Eth1.doc} {
			for _, a := range x.Addresses {
				take(a.V, holder{guest: g.Name, iface: interfaceNames[i], pos: a.Pos})
			}
		}
	}
}

func (c *checker) taken(a netip.Addr, h, o holder) {
	if comparePos(h.pos, o.pos) < 0 {
		h, o = o, h
	}
	c.clash(h.pos, o.pos, o.String(), "an address has one holder in the whole fleet", "%s: address %s is already %s", h, a, o.owned())
}

// attachment checks one interface of a guest: the network's role, its zone and site, and the addresses.
func (c *checker) attachment(g GuestEntry, a Attachment, iface string, role NetworkRole) {
	of := guestKind(g.Role) + " " + string(g.Name)
	n := known(c, c.f.index.networks, a.doc.Network, "network", of+": "+iface)
	if a.doc.Addresses != nil && len(a.doc.Addresses) == 0 {
		c.errorf(a.Pos, "addresses: [192.0.2.2, \"2001:db8::2\"]", "%s: %s has an empty list of addresses", of, iface)
	}
	if n == nil {
		return
	}
	if n.Role != role && n.Role != "" {
		c.clash(a.doc.Network.Pos, n.doc.Role.Pos, "the network's role", c.candidates(g, role),
			"%s: %s must be in a network of role %s, %s has role %s", of, iface, role, n.Name, n.Role)
	}
	if b := c.f.Blade(g.Blade); b != nil {
		if c.mixed(n.Zone, b.Zone) {
			c.clash(a.doc.Network.Pos, n.doc.Zone.Pos, "the network's zone", "zones share nothing",
				"%s: network %s belongs to zone %s, blade %s to zone %s", of, n.Name, n.Zone, b.Name, b.Zone)
		}
		if c.f.index.sites[b.Site] != nil && !n.at(b.Site) {
			c.clash(a.doc.Network.Pos, n.Pos, "the network", c.candidates(g, role),
				"%s: network %s is not carried to site %s, where blade %s stands", of, n.Name, b.Site, b.Name)
		}
	}
	for _, x := range a.doc.Addresses {
		c.inSubnet(n, x, of+": "+iface+" address")
	}
}

// mixed reports whether two zones differ; one that the policy does not know is reported as such and nothing else.
func (c *checker) mixed(a, b ZoneName) bool {
	return a != b && c.f.index.zones[a] != nil && c.f.index.zones[b] != nil
}

func guestKind(r Role) string {
	if r == RoleDirector {
		return "director"
	}
	return "real server"
}

// candidates names the networks that an interface could be in.
func (c *checker) candidates(g GuestEntry, role NetworkRole) string {
	b := c.f.Blade(g.Blade)
	if b == nil {
		return ""
	}
	var names []string
	for i := range c.f.Networks {
		n := &c.f.Networks[i]
		if n.Role == role && n.Zone == b.Zone && n.at(b.Site) {
			names = append(names, string(n.Name))
		}
	}
	if len(names) == 0 || len(names) > 5 {
		return ""
	}
	return "on blade " + string(b.Name) + " there is " + list(names)
}

// families refuses a guest with a family on one interface only: requests would come in and answers could not leave.
func (c *checker) families(g GuestEntry) {
	for _, v4 := range []bool{true, false} {
		_, on0 := firstOf(g.Eth0.Addresses, v4)
		_, on1 := firstOf(g.Eth1.Addresses, v4)
		if on0 == on1 || len(g.Eth0.Addresses) == 0 || len(g.Eth1.Addresses) == 0 {
			continue
		}
		has, misses := "eth0", g.Eth1
		name := "eth1"
		if on1 {
			has, misses, name = "eth1", g.Eth0, "eth0"
		}
		c.errorf(misses.Pos, "requests pass both interfaces: a family needs an address on each",
			"%s %s has %s on %s and not on %s", guestKind(g.Role), g.Name, familyName(v4), has, name)
	}
}

// directors checks each director's interfaces and announcement.
func (c *checker) directors() {
	for i := range c.f.Directors {
		d := &c.f.Directors[i]
		known(c, c.f.index.blades, d.doc.Blade, "blade", "director "+string(d.Name))
		c.attachment(d.guest(), d.Eth0, "eth0", NetworkUplink)
		c.attachment(d.guest(), d.Eth1, "eth1", NetworkService)
		c.families(d.guest())
		c.announcement(d)
		c.syncing(d)
	}
}

// syncing checks that a director which shares its connections can, and has somebody to share them with.
func (c *checker) syncing(d *Director) {
	if d.Sync == 0 {
		return
	}
	of, at := "director "+string(d.Name), d.doc.Sync.Pos
	if _, ok := firstOf(d.Eth1.Addresses, true); !ok && len(d.Eth1.Addresses) > 0 {
		c.errorf(at, "the kernel tells of connections of both families from an IPv4 address", "%s: sync needs an IPv4 address on eth1", of)
	}
	if !slices.ContainsFunc(c.f.Directors, func(x Director) bool {
		return x.Name != d.Name && x.Sync == d.Sync && x.Eth1.Network == d.Eth1.Network
	}) {
		c.warnf(at, fmt.Sprintf("sync: %d in another director of its service network", d.Sync), "%s shares its connections with nobody", of)
	}
}

// announcement checks how a director tells its routers of its VIPs.
func (c *checker) announcement(d *Director) {
	of := "director " + string(d.Name)
	o, b := d.doc.Announce.OSPF, d.doc.Announce.BGP
	if d.doc.Announce.unclear {
		return
	}
	c.oneProtocol(of, d.doc.Announce)
	if v := d.doc.Announce.VRRP; v != nil {
		c.advertising(of, v)
		if o == nil && b == nil {
			return
		}
	}
	if o == nil && b == nil {
		pos := d.Pos
		if d.announce.Line != 0 {
			pos = d.announce
		}
		c.warnf(pos, "announce: {ospf: {}}, {bgp: {as: 64512, peer-as: 64500}} or {vrrp: {priority: 100}}", "%s announces nothing: nobody can reach its VIPs", of)
		return
	}
	if _, ok := firstOf(d.Eth0.Addresses, true); !ok && len(d.Eth0.Addresses) > 0 {
		c.errorf(d.Eth0.Pos, "the router identifier is the first IPv4 address of eth0", "%s announces and has no IPv4 address on eth0", of)
	}
	if b != nil {
		c.watch(b.BFD, d.BGP.BFD, of, bgpHold)
	}
	if o == nil {
		return
	}
	c.watch(o.BFD, d.OSPF.BFD, of, d.OSPF.Dead)
	c.wholeSeconds(o.Hello, of+": hello", time.Second, 65535*time.Second)
	c.wholeSeconds(o.Dead, of+": dead", time.Second, 65535*time.Second)
	if d.OSPF.Dead <= d.OSPF.Hello {
		pos := o.Dead.Pos
		if !o.Dead.written() {
			pos = o.Hello.Pos
		}
		c.errorf(pos, "four times hello is usual", "%s: dead (%s) is not longer than hello (%s): a router would be lost at once", of, short(d.OSPF.Dead), short(d.OSPF.Hello))
	}
}

// bgpHold is how long a director's BGP session lives without a word.
const bgpHold = 9 * time.Second

// watch checks how a director watches its routers, which without BFD are lost after slow.
func (c *checker) watch(d bfdDoc, b BFD, of string, slow time.Duration) {
	const least, most = 10 * time.Millisecond, time.Minute
	switch {
	case !b.Enabled():
	case d.Interval.written() && (b.Interval < least || b.Interval > most):
		c.errorf(d.Interval.Pos, "from "+short(least)+" to "+short(most), "%s: interval %s is out of range", of, short(b.Interval))
	case b.Interval*time.Duration(b.Multiplier) >= slow:
		c.warnf(d.Pos, "interval times multiplier, less than "+short(slow), "%s: BFD takes %s to notice what is noticed after %s without it",
			of, short(b.Interval*time.Duration(b.Multiplier)), short(slow))
	}
}

// wholeSeconds checks a duration that its protocol or the kernel keeps in seconds.
func (c *checker) wholeSeconds(d at[time.Duration], what string, least, most time.Duration) {
	switch {
	case !d.written():
	case d.V < least || d.V > most:
		c.errorf(d.Pos, "from "+short(least)+" to "+short(most), "%s %s is out of range", what, short(d.V))
	case d.V%time.Second != 0:
		c.errorf(d.Pos, "it is kept in seconds", "%s %s is not a whole number of seconds", what, short(d.V))
	}
}

// short writes a duration as a policy does.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d%time.Hour == 0:
		return itoa(int64(d/time.Hour)) + "h"
	case d%time.Minute == 0:
		return itoa(int64(d/time.Minute)) + "m"
	case d%time.Second == 0:
		return itoa(int64(d/time.Second)) + "s"
	}
	return itoa(int64(d/time.Millisecond)) + "ms"
}

// realServers checks each real server's interfaces and what it serves.
func (c *checker) realServers() {
	for i := range c.f.RealServers {
		g := &c.f.RealServers[i]
		of := "real server " + string(g.Name)
		b := known(c, c.f.index.blades, g.doc.Blade, "blade", of)
		c.attachment(g.guest(), g.Eth0, "eth0", NetworkReturn)
		c.attachment(g.guest(), g.Eth1, "eth1", NetworkService)
		c.families(g.guest())
		if g.doc.Serves != nil && len(g.Serves) == 0 {
			c.warnf(g.Pos, "", "%s serves nothing", of)
		}
		c.volumes(of, g.Volumes)
		c.machine(of, g)
		c.spare(of, g)
		for _, s := range g.Serves {
			x := known(c, c.f.index.services, at[ServiceName]{s.Service, s.Pos}, "service", of)
			if x != nil && b != nil && c.mixed(x.Zone, b.Zone) {
				c.clash(s.Pos, x.doc.Zone.Pos, "the service's zone", "zones share nothing",
					"%s: service %s belongs to zone %s, blade %s to zone %s", of, s.Service, x.Zone, b.Name, b.Zone)
			}
		}
	}
	c.eth1Families()
}

// volumes refuses a guest's volumes that would hide each other.
func (c *checker) volumes(of string, list []VolumeEntry) {
	for i, v := range list {
		for _, o := range list[:i] {
			outer, inner := o, v
			if len(outer.Path) > len(inner.Path) {
				outer, inner = inner, outer
			}
			switch {
			case outer.Path == "": // reported already
			case outer.Path == inner.Path:
				c.clash(v.path, o.path, "volume "+string(o.Name), "a volume has a place of its own", "%s: volumes %s and %s are both at %s", of, o.Name, v.Name, v.Path)
			case strings.HasPrefix(inner.Path, outer.Path+"/"):
				c.clash(inner.path, outer.path, "volume "+string(outer.Name), "put them beside each other, or make it one volume",
					"%s: volume %s at %s lies inside volume %s", of, inner.Name, inner.Path, outer.Name)
			}
		}
	}
}

// spare refuses a spare real server that nobody would call: a blade hears its own directors only.
func (c *checker) spare(of string, g *RealServer) {
	if !g.Spare {
		return
	}
	at := g.doc.Spare.Pos
	b := c.f.Blade(g.Blade)
	if b != nil && !slices.ContainsFunc(c.f.Directors, func(d Director) bool { return d.Blade == b.Name }) {
		c.clash(at, b.Pos, "the blade", "a blade with a director, or leave it out", "%s: blade %s has no director that could say that a spare one is wanted", of, b.Name)
	}
	for _, name := range c.f.index.sorry[g.Name] {
		s := c.f.Service(name)
		c.clash(at, s.doc.Sorry.Pos, "the service", "a sorry server runs all the time", "%s: it is the sorry server of %s, and a spare one", of, name)
	}
}

// machine refuses what only a container has for a real server that is a virtual machine.
func (c *checker) machine(of string, g *RealServer) {
	if g.Driver != DriverKVM {
		return
	}
	if p := g.doc.Privileged; g.Privileged {
		c.clash(p.Pos, g.doc.Driver.Pos, "its driver", "leave it out: a virtual machine has a kernel of its own", "%s: privileged is for containers", of)
	}
	if p := g.doc.PIDs; p.written() {
		c.clash(p.Pos, g.doc.Driver.Pos, "its driver", "leave it out: the processes of a virtual machine are its own kernel's, in its own memory", "%s: pids is for containers", of)
	}
	if p := g.doc.IOWeight; p.written() {
		c.clash(p.Pos, g.doc.Driver.Pos, "its driver", "leave it out", "%s: io-weight is for containers", of)
	}
	if p := g.doc.Disk; p.written() {
		c.clash(p.Pos, g.doc.Driver.Pos, "its driver", "leave it out: the disk of a virtual machine has the size that its image gives it", "%s: disk is for containers", of)
	}
	for _, v := range g.Volumes {
		c.clash(v.Pos, g.doc.Driver.Pos, "its driver", "driver: lxc, or data that lives elsewhere: the disk of a virtual machine is made anew with each newer image",
			"%s: volume %s: volumes are for containers", of, v.Name)
	}
}

// eth1Families finds services with a VIP in a family in which none of their real servers has an address.
func (c *checker) eth1Families() {
	for i := range c.f.Services {
		s := &c.f.Services[i]
		servers := c.f.index.servers[s.Name]
		has := map[bool]bool{}
		for _, v4 := range []bool{true, false} {
			has[v4] = len(servers) == 0 || slices.ContainsFunc(servers, func(g server) bool {
				_, ok := firstOf(g.Eth1.Addresses, v4)
				return ok || len(g.Eth1.Addresses) == 0
			})
		}
		for _, v := range s.doc.VIPs {
			if !has[v.V.Is4()] {
				c.errorf(v.Pos, "give its real servers addresses of the family, or remove the VIP",
					"service %s: no real server has an %s address for VIP %s", s.Name, familyName(v.V.Is4()), v.V)
			}
		}
	}
}
