package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// rules resolves names and roles to addresses. A rule that has nobody left at one end can allow nothing and is left out, since
// an empty list must never be read as anybody; so is one that concerns no guest of the zone at either end.
func (c *change) rules(v *Deriver) []Rule {
	out := []Rule{}
	for i := range c.f.Rules {
		e := &c.f.Rules[i]
		r := Rule{Name: e.Name, Allow: sortedPorts(e.Allow), Pos: e.Pos}
		from, to := c.resolve, c.resolve
		if old := c.ruleBefore(v, e); old != nil {
			from = func(list []Selector) ([]netip.Prefix, bool) { return c.resolveAgain(list, old.From), old.FromAny }
			to = func(list []Selector) ([]netip.Prefix, bool) { return c.resolveAgain(list, old.To), old.ToAny }
		}
		r.From, r.FromAny = from(e.From)
		r.To, r.ToAny = to(e.To)
		nobody := !r.FromAny && len(r.From) == 0 || !r.ToAny && len(r.To) == 0
		if !nobody && (touches(r.From, v.addresses) || touches(r.To, v.addresses)) {
			out = append(out, r)
		}
	}
	return out
}

// hosts are the rules of the management address.
func (c *change) hosts() []Rule {
	out := []Rule{}
	for i := range c.f.Hosts {
		e := &c.f.Hosts[i]
		r := Rule{Name: e.Name, Allow: sortedPorts(e.Allow), Pos: e.Pos}
		if r.From, r.FromAny = c.resolve(e.From); r.FromAny || len(r.From) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// ruleBefore is what a rule was resolved to before, nil when it was left out or says something else now.
func (c *change) ruleBefore(v *Deriver, e *RuleEntry) *Rule {
	i, ok := slices.BinarySearchFunc(v.blade.Rules, e.Name, func(r Rule, name string) int { return cmp.Compare(r.Name, name) })
	j, known := slices.BinarySearchFunc(c.was.Rules, e.Name, func(r RuleEntry, name string) int { return cmp.Compare(r.Name, name) })
	if !ok || !known || !slices.Equal(c.was.Rules[j].From, e.From) || !slices.Equal(c.was.Rules[j].To, e.To) {
		return nil
	}
	return &v.blade.Rules[i]
}

// touches reports whether any of the sorted addresses lies in any of the prefixes.
func touches(prefixes []netip.Prefix, sorted []netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		i, _ := slices.BinarySearchFunc(sorted, p.Addr(), netip.Addr.Compare)
		return i < len(sorted) && p.Contains(sorted[i])
	})
}

// resolve turns one end of a rule into prefixes, sorted, each once. Roles mean the guests of the blade's own zone; a guest's
// name means its addresses, whatever its zone.
func (d *deriver) resolve(list []Selector) (out []netip.Prefix, any bool) {
	for _, s := range list {
		switch {
		case s.Any:
			any = true
		case s.Role == RoleDirector:
			for i := range d.f.Directors {
				out = d.appendMember(out, d.f.Directors[i].guest())
			}
		case s.Role == RoleRealServer:
			for i := range d.f.RealServers {
				out = d.appendMember(out, d.f.RealServers[i].guest())
			}
		case s.Guest != "":
			if g, ok := d.f.Guest(s.Guest); ok {
				out = appendHosts(out, g)
			}
		default:
			out = append(out, s.Prefix)
		}
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out), any
}

// resolveAgain brings one end of a rule, as it was resolved before, up to date.
func (c *change) resolveAgain(list []Selector, before []netip.Prefix) []netip.Prefix {
	meant := func(g GuestEntry) bool {
		return slices.ContainsFunc(list, func(s Selector) bool {
			return s.Guest == g.Name || s.Role != "" && s.Role == g.Role && c.inZone(g.Blade)
		})
	}
	var gone, fresh []netip.Prefix
	for _, g := range c.before {
		if meant(g) {
			gone = appendHosts(gone, g)
		}
	}
	for _, g := range c.after {
		if meant(g) {
			fresh = appendHosts(fresh, g)
		}
	}
	if len(gone)+len(fresh) == 0 {
		return before
	}
	// What leaves with one guest may be written out in the rule as well.
	others, _ := c.resolve(slices.DeleteFunc(slices.Clone(list), func(s Selector) bool { return s.Role != "" }))
	fresh = append(fresh, others...)
	slices.SortFunc(fresh, comparePrefix)
	fresh = slices.Compact(fresh)
	gone = append(gone, fresh...)
	slices.SortFunc(gone, comparePrefix)
	return patch(before, gone, fresh, itself, comparePrefix)
}

func (d *deriver) appendMember(out []netip.Prefix, g GuestEntry) []netip.Prefix {
	if d.inZone(g.Blade) {
		return appendHosts(out, g)
	}
	return out
}

func appendHosts(out []netip.Prefix, g GuestEntry) []netip.Prefix {
	for _, list := range [][]netip.Addr{g.Eth0.Addresses, g.Eth1.Addresses} {
		for _, a := range list {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}
