package policy

import (
	"net/netip"
	"slices"
)

// rules resolves names and roles to addresses. A rule that has nobody left at one end can allow nothing and is left out, since
// an empty list must never be read as anybody; so is one that concerns no guest of the zone at either end.
func (d *deriver) rules(list []RuleEntry, ends bool) []Rule {
	out := []Rule{}
	var zone []netip.Addr
	if ends {
		zone = d.zoneAddresses()
	}
	for i := range list {
		e := &list[i]
		r := Rule{Name: e.Name, Allow: sortedPorts(e.Allow), Pos: e.Pos}
		r.From, r.FromAny = d.resolve(e.From)
		if !r.FromAny && len(r.From) == 0 {
			continue
		}
		if ends {
			r.To, r.ToAny = d.resolve(e.To)
			if !r.ToAny && len(r.To) == 0 || !touches(r.From, zone) && !touches(r.To, zone) {
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// zoneAddresses lists the addresses of the zone's guests, sorted.
func (d *deriver) zoneAddresses() []netip.Addr {
	var out []netip.Addr
	for _, g := range d.directors {
		out = append(append(out, g.Eth0.Addresses...), g.Eth1.Addresses...)
	}
	for _, g := range d.realServers {
		out = append(append(out, g.Eth0.Addresses...), g.Eth1.Addresses...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
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
	add := func(g GuestEntry) {
		for _, a := range slices.Concat(g.Eth0.Addresses, g.Eth1.Addresses) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, s := range list {
		switch {
		case s.Any:
			any = true
		case s.Role == RoleDirector:
			for _, g := range d.directors {
				add(g.guest())
			}
		case s.Role == RoleRealServer:
			for _, g := range d.realServers {
				add(g.guest())
			}
		case s.Guest != "":
			if g, ok := d.f.Guest(s.Guest); ok {
				add(g)
			}
		default:
			out = append(out, s.Prefix)
		}
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out), any
}
