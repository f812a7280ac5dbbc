package inside

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Step is one change and what Apply needs for it.
type Step struct {
	plan.Step
	do    change   // nil for a blocked step
	needs []string // objects whose failure makes this step pointless
}

// planner holds what the parts of one Plan share.
type planner struct {
	want    policy.Inside
	have    State
	index   map[string]int  // wanted interface to the link that is or becomes it; lo included
	renamed map[string]bool // wanted interfaces that get their name only now
	lost    map[string]bool // wanted interfaces whose IPv4 routes go with their last address
	steps   []Step
}

// Plan says what has to change so that what is there becomes what is wanted. It is pure: the same arguments give the same steps. The order
// is the order in which Apply must do them: names, sysctls, then interfaces, addresses, VIPs, and routes at last.
func Plan(want policy.Inside, have State) []Step {
	p := &planner{want: want, have: have, index: map[string]int{}, renamed: map[string]bool{}, lost: map[string]bool{}}
	p.match()
	p.planNames()
	p.planSysctls()
	p.planUp()
	for _, i := range want.Interfaces {
		p.planAddresses(i.Name, wantedOn(i))
	}
	p.planAddresses(loopback, wantedVIPs(want.VIPs))
	p.planRoutes()
	return p.steps
}

// match finds each wanted interface: by its MAC among devices and veths (a VLAN link or a bridge borrows the MAC of the link below), by its
// name if nothing has that MAC.
func (p *planner) match() {
	taken := map[int]bool{}
	if lo, ok := p.have.named(loopback); ok {
		p.index[loopback] = lo.Index
		taken[lo.Index] = true
	}
	for _, i := range p.want.Interfaces {
		best, found := Link{}, false
		for _, l := range p.have.Links {
			if taken[l.Index] || l.MAC != i.MAC || i.MAC == (policy.MAC{}) || l.Kind != "" && l.Kind != "veth" {
				continue
			}
			if !found || l.Name == i.Name {
				best, found = l, true
			}
		}
		if found {
			p.index[i.Name] = best.Index
			taken[best.Index] = true
		}
	}
	for _, i := range p.want.Interfaces {
		if l, ok := p.have.named(i.Name); ok && !taken[l.Index] && p.index[i.Name] == 0 {
			p.index[i.Name] = l.Index
			taken[l.Index] = true
		}
	}
}

// planNames renames the interfaces that were found by their MAC under another name. Whoever holds a wanted name steps aside first.
func (p *planner) planNames() {
	var aside, final []Step
	for _, i := range p.want.Interfaces {
		index, ok := p.index[i.Name]
		if !ok {
			p.block("interface "+i.Name, fmt.Sprintf("no interface with the address %s or the name %s is there; links here: %s", i.MAC, i.Name, p.names()))
			continue
		}
		if l, _ := p.have.link(index); l.Name != i.Name {
			p.renamed[i.Name] = true
			final = append(final, p.step(plan.Update, "interface "+i.Name, []string{"name " + shown(l.Name) + " -> " + i.Name}, rename{index: index, name: i.Name}))
		}
	}
	for _, i := range p.want.Interfaces {
		if l, ok := p.have.named(i.Name); ok && p.renamed[i.Name] {
			name := fmt.Sprintf("aside%d", l.Index)
			aside = append(aside, p.step(plan.Update, "interface "+l.Name, []string{"name " + l.Name + " -> " + name}, rename{index: l.Index, name: name}))
		}
	}
	p.steps = append(p.steps, aside...)
	p.steps = append(p.steps, final...)
}

func (p *planner) names() string {
	var out []string
	for _, l := range p.have.Links {
		if l.Name != loopback {
			out = append(out, shown(l.Name))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	if len(out) > maxListed {
		out = append(out[:maxListed], fmt.Sprintf("and %d more", len(out)-maxListed))
	}
	return strings.Join(out, " ")
}

// maxListed bounds the links that a reason lists.
const maxListed = 12

// shown is a link's name for people. Root in a guest chooses names, and a terminal must not obey them.
func shown(name string) string {
	if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

func (p *planner) planSysctls() {
	toAll := map[string]bool{} // settings whose value for all interfaces is about to change, and that of each with it
	for _, s := range p.want.Sysctls {
		object := "sysctl " + s.Key
		iface := p.sysctlInterface(s.Key)
		if !validSysctl(s.Key) {
			p.block(object, "it is not a setting of a network namespace: its name must begin with net/")
			continue
		}
		if _, there := p.index[iface]; iface != "" && !there {
			continue // the interface's own blocked step says why
		}
		have, exists := p.have.Sysctls[s.Key]
		want := strings.Join(strings.Fields(s.Value), " ")
		scope, setting := splitConf(s.Key)
		if exists && have == want && !p.renamed[iface] && !toAll[setting] {
			continue
		}
		if scope == "all" {
			toAll[setting] = true
		}
		detail := have + " -> " + want
		if !exists || have == want || p.renamed[iface] {
			detail = want
		}
		p.steps = append(p.steps, p.step(plan.Update, object, []string{detail}, setSysctl{key: s.Key, value: want}))
	}
}

// sysctlInterface returns the wanted interface that a key belongs to: net/ipv4/conf/eth1/rp_filter is eth1's.
func (p *planner) sysctlInterface(key string) string {
	scope, _ := splitConf(key)
	for _, i := range p.want.Interfaces {
		if i.Name == scope {
			return i.Name
		}
	}
	return ""
}

// splitConf splits a key that is there once for each interface, once for all and once as their default: net/ipv4/conf/eth1/rp_filter is
// rp_filter of ipv4 for eth1. Any other key has neither.
func splitConf(key string) (scope, setting string) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 || parts[2] != "conf" && parts[2] != "neigh" {
		return "", ""
	}
	return parts[3], parts[1] + "/" + parts[2] + "/" + parts[4]
}

func (p *planner) planUp() {
	names := []string{loopback}
	for _, i := range p.want.Interfaces {
		names = append(names, i.Name)
	}
	for _, name := range names {
		index, ok := p.index[name]
		if !ok {
			continue
		}
		// A renamed interface was set down for it.
		if l, _ := p.have.link(index); !l.Up || p.renamed[name] {
			p.steps = append(p.steps, p.step(plan.Update, "interface "+name, []string{"up"}, setUp{index: index}))
		}
	}
}

// address is an address as it is wanted.
type address struct {
	prefix    netip.Prefix
	broadcast netip.Addr
	preferred bool
}

func wantedOn(i policy.Interface) []address {
	var out []address
	for _, prefix := range i.Addresses {
		out = append(out, address{prefix: prefix, broadcast: broadcast(prefix), preferred: true})
	}
	return out
}

// wantedVIPs gives an IPv6 VIP the preferred lifetime 0, so that it is never chosen as a source address (RFC 6724, rule 3). IPv4 knows no such
// thing: there the addresses of the outgoing interface win.
func wantedVIPs(vips []policy.VIP) []address {
	var out []address
	for _, v := range vips {
		out = append(out, address{prefix: netip.PrefixFrom(v.Address, v.Address.BitLen()), preferred: v.Address.Is4()})
	}
	return out
}

// broadcast returns the last address of an IPv4 subnet that has a broadcast address: /31 and /32 have none (RFC 3021).
func broadcast(prefix netip.Prefix) netip.Addr {
	if !prefix.Addr().Is4() || prefix.Bits() > 30 {
		return netip.Addr{}
	}
	a := prefix.Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

func (p *planner) planAddresses(name string, want []address) {
	index, ok := p.index[name]
	if !ok {
		return
	}
	have := p.addressesOf(name, index)
	wanted := map[netip.Prefix]address{}
	for _, w := range want {
		wanted[w.prefix] = w
	}
	gone := map[netip.Prefix]bool{}
	for _, h := range have {
		w, ok := wanted[h.Prefix]
		if !ok && (h.Prefix.Addr().IsLoopback() || h.Prefix.Addr().IsLinkLocalUnicast() || p.floats(name, h.Prefix)) {
			continue
		}
		reason := "not in the policy"
		if ok {
			reason = wrong(h, w)
			p.planLifetime(name, index, h, w, reason)
		}
		if reason == "" {
			continue
		}
		gone[h.Prefix] = true
		s := p.step(plan.Delete, addressObject(h.Prefix, name), nil, removeAddress{index: index, prefix: h.Prefix, peer: h.Peer})
		s.Reason = reason
		p.steps = append(p.steps, s)
	}
	p.lost[name] = loses4(have, gone)
	p.addAddresses(name, index, want, have, gone)
}

// addressesOf returns what is on an interface; one that is set down to be renamed loses its IPv6 addresses.
func (p *planner) addressesOf(name string, index int) []Address {
	var out []Address
	for _, a := range p.have.Addresses {
		if a.Link == index && (a.Prefix.Addr().Is4() || !p.renamed[name]) {
			out = append(out, a)
		}
	}
	return out
}

// wrong says what has to be different about an address, if that takes a new one.
func wrong(h Address, w address) string {
	switch {
	case h.Peer.IsValid():
		return "it belongs to a point-to-point link with " + h.Peer.String()
	case h.Broadcast != w.broadcast && w.broadcast.IsValid():
		return fmt.Sprintf("its broadcast is %s, not %s", orNone(h.Broadcast), w.broadcast)
	case h.Broadcast != w.broadcast:
		return fmt.Sprintf("its broadcast is %s, and it must have none", h.Broadcast)
	case h.Failed:
		return "the kernel doubts that it is unique"
	}
	return ""
}

// planLifetime changes the lifetimes of an address that is right otherwise, in place: a VIP must not be away for a moment.
func (p *planner) planLifetime(name string, index int, h Address, w address, wrong string) {
	if wrong != "" || h.Lasting && h.Preferred == w.preferred {
		return
	}
	var detail []string
	if !h.Lasting {
		detail = append(detail, "for ever")
	}
	if h.Preferred != w.preferred && w.preferred {
		detail = append(detail, "preferred")
	} else if h.Preferred != w.preferred {
		detail = append(detail, "preferred lifetime 0")
	}
	p.steps = append(p.steps, p.step(plan.Update, addressObject(w.prefix, name), detail, setLifetime{index: index, address: w}))
}

func orNone(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

func (p *planner) addAddresses(name string, index int, want []address, have []Address, gone map[netip.Prefix]bool) {
	for _, w := range want {
		stays, reason := false, ""
		for _, h := range have {
			if h.Prefix != w.prefix || gone[h.Prefix] {
				continue
			}
			stays = true
			// The kernel takes a subnet's other addresses away with its first one, unless it is told to promote them.
			if h.Secondary && firstGone(h, have, gone) {
				stays, reason = false, "it goes with the subnet's first address"
			}
		}
		if stays {
			continue
		}
		var detail []string
		if w.broadcast.IsValid() {
			detail = append(detail, "broadcast "+w.broadcast.String())
		}
		if !w.preferred {
			detail = append(detail, "preferred lifetime 0")
		}
		s := p.step(plan.Create, addressObject(w.prefix, name), detail, addAddress{index: index, address: w})
		s.Reason = reason
		s.needs = []string{"interface " + name}
		p.steps = append(p.steps, s)
	}
}

// loses4 says whether an interface loses its last IPv4 address on the way, and with it its IPv4 routes.
func loses4(have []Address, gone map[netip.Prefix]bool) bool {
	had, keeps := false, false
	for _, h := range have {
		if h.Prefix.Addr().Is4() {
			had = true
			keeps = keeps || !gone[h.Prefix] && !(h.Secondary && firstGone(h, have, gone))
		}
	}
	return had && !keeps
}

// firstGone says whether the address that a secondary one goes with is taken away.
func firstGone(secondary Address, have []Address, gone map[netip.Prefix]bool) bool {
	for _, h := range have {
		if gone[h.Prefix] && !h.Secondary && h.Prefix.Masked() == secondary.Prefix.Masked() {
			return true
		}
	}
	return false
}

func addressObject(prefix netip.Prefix, name string) string {
	return "address " + prefix.String() + " on " + name
}

func (p *planner) step(verb plan.Verb, object string, detail []string, do change) Step {
	return Step{Step: plan.Step{Subsystem: Subsystem, Verb: verb, Object: object, Guest: p.want.Hostname, Detail: detail}, do: do}
}

func (p *planner) block(object, reason string) {
	s := p.step(plan.Blocked, object, nil, nil)
	s.Reason = reason
	p.steps = append(p.steps, s)
}
