package policy

import (
	"net/netip"
	"slices"
)

// rules checks who speaks with whom.
func (c *checker) rules() {
	for i := range c.f.Rules {
		r := &c.f.Rules[i]
		of := "rule " + r.Name
		from := c.selectors(of, r.From, r.from)
		to := c.selectors(of, r.To, r.to)
		c.emptyLists(of, r, true)
		if from && to {
			c.errorf(r.Pos, "name one end", "%s allows from any to any", of)
		}
	}
	c.expansion()
}

// emptyLists refuses ends and allowances that say nothing.
func (c *checker) emptyLists(of string, r *RuleEntry, ends bool) {
	for _, x := range []struct {
		name  string
		empty bool
	}{{"from", len(r.From) == 0}, {"to", ends && len(r.To) == 0}, {"allow", len(r.Allow) == 0}} {
		if x.empty && r.complete {
			c.errorf(r.Pos, "what no rule allows is dropped anyway", "%s: an empty %s allows nothing", of, x.name)
		}
	}
}

// selectors checks the names at one end and reports whether the end is everybody.
func (c *checker) selectors(of string, list []Selector, places []Pos) (everybody bool) {
	for i, s := range list {
		if s.Guest != "" {
			c.guestReference(of, s.Guest, places[i], false)
		}
		everybody = everybody || s.Any || s.Prefix.IsValid() && s.Prefix.Bits() == 0
	}
	return everybody
}

// guestReference reports a name that is no guest's (nor a blade's, where those may stand).
func (c *checker) guestReference(of string, name GuestName, pos Pos, blades bool) {
	if _, ok := c.f.Guest(name); ok {
		return
	}
	if b := c.f.Blade(BladeName(name)); b != nil && !blades {
		c.clash(pos, b.Pos, "the blade", "hosts: says what may reach blades", "%s: %s is a blade, not a guest", of, name)
		return
	}
	if s := c.f.Service(ServiceName(name)); s != nil {
		c.clash(pos, s.Pos, "the service", "write its VIPs, or its real servers", "%s: %s is a service, not a guest", of, name)
		return
	}
	hint := ""
	if c.mayHint() {
		if near := nearest(string(name), c.speakers(blades)); near != "" {
			hint = "did you mean \"" + near + "\"?"
		}
	}
	what := "guest"
	if blades {
		what = "guest or blade"
	}
	c.errorf(pos, hint, "%s: there is no %s %s", of, what, name)
}

// speakers lists the words that may stand in a rule, or the names that may stand in an expectation.
func (c *checker) speakers(blades bool) []string {
	out := []string{"any", "directors", "realservers"}
	if blades {
		out = nil
		for i := range c.f.Blades {
			out = append(out, string(c.f.Blades[i].Name))
		}
	}
	for _, g := range c.f.Guests() {
		out = append(out, string(g.Name))
	}
	return out
}

// mostPrefixes bounds what the rules of one zone may expand to, in addresses and prefixes.
const mostPrefixes = 1_000_000

// expansion refuses rules that name whole roles so often that a blade could not hold them.
func (c *checker) expansion() {
	directors, realServers, total := 2*2*len(c.f.Directors), 2*2*len(c.f.RealServers), 0
	for i := range c.f.Rules {
		r := &c.f.Rules[i]
		for _, s := range slices.Concat(r.From, r.To) {
			switch s.Role {
			case RoleDirector:
				total += directors
			case RoleRealServer:
				total += realServers
			default:
				total++
			}
		}
		if total > mostPrefixes {
			c.errorf(r.Pos, "write prefixes instead of directors and realservers", "rule %s: the rules stand for more than %d addresses", r.Name, mostPrefixes)
			return
		}
	}
}

// hosts checks what may reach the blades' management addresses.
func (c *checker) hosts() {
	for i := range c.f.Hosts {
		r := &c.f.Hosts[i]
		of := "host rule " + r.Name
		c.emptyLists(of, r, false)
		for j, s := range r.From {
			if s.Guest != "" || s.Role != "" {
				c.errorf(r.from[j], "nothing from a guest is ever accepted by a blade", "%s: %s are guests", of, s)
			}
		}
	}
}

// expectations checks that each expectation describes a packet.
func (c *checker) expectations() {
	for i := range c.f.Expectations {
		e := &c.f.Expectations[i]
		const of = "expectation"
		for _, x := range []struct {
			Endpoint
			pos Pos
		}{{e.From, e.from}, {e.To, e.to}} {
			if x.Guest != "" {
				c.guestReference(of, x.Guest, x.pos, true)
			}
			if x.Address.IsValid() && !unicast(x.Address) {
				c.errorf(x.pos, "", "%s: %s is no address of a host", of, x.Address)
			}
		}
		c.packet(e)
		c.packetFamilies(e)
	}
}

// packet checks ports, flags and protocol.
func (c *checker) packet(e *Expectation) {
	if p := e.doc.To.Port; p.written() && p.V.First != p.V.Last {
		c.errorf(p.Pos, "one packet goes to one port", "expectation: %s is a range", p.V)
	}
	if x := e.doc.Flags; x.written() && e.Protocol != TCP {
		c.errorf(x.Pos, "", "expectation: flags on a packet that is not TCP")
	}
	if x := e.doc.SourcePort; x.written() && e.Protocol == ICMP {
		c.errorf(x.Pos, "", "expectation: a source port on an ICMP packet")
	}
}

// packetFamilies checks that the packet has one family.
func (c *checker) packetFamilies(e *Expectation) {
	as := e.doc.As
	if as.written() && e.From.Address.IsValid() {
		c.clash(as.Pos, e.from, "from", "write the source address as from", "expectation: an address that speaks as another")
		return
	}
	source := e.From.Address
	if as.written() {
		source = as.V
	}
	if source.IsValid() && e.To.Address.IsValid() && source.Is4() != e.To.Address.Is4() {
		c.clash(e.to, e.from, "the source", "", "expectation: from %s to %s: two families", source, e.To.Address)
		return
	}
	for _, x := range []struct {
		guest GuestName
		pos   Pos
		other netip.Addr
	}{{e.To.Guest, e.to, source}, {e.From.Guest, e.from, e.To.Address}} {
		g, ok := c.f.Guest(x.guest)
		if !ok || !x.other.IsValid() {
			continue
		}
		same := func(a netip.Addr) bool { return a.Is4() == x.other.Is4() }
		if !slices.ContainsFunc(g.Eth0.Addresses, same) && !slices.ContainsFunc(g.Eth1.Addresses, same) && len(g.Eth0.Addresses) > 0 {
			c.errorf(x.pos, "", "expectation: guest %s has no %s address", x.guest, familyName(x.other.Is4()))
		}
	}
}
