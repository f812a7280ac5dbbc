package bridges

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// subsystem is the name of this subsystem in steps.
const subsystem = "links"

// ethernet8021Q is the EtherType of 802.1Q tags (ETH_P_8021Q).
const ethernet8021Q = 0x8100

// Step is one change to one link and what Apply needs for it.
type Step struct {
	plan.Step
	do    change   // nil for a blocked step
	needs []string // objects whose failure makes this step pointless
}

// Steps are the changes in the three phases that keep a port closed: what goes, what comes without being joined, and, when the filter
// knows the ports, what joins. Apply each with Kernel.Apply, in this order.
type Steps struct {
	Remove []Step
	Create []Step
	Attach []Step
}

// All returns every step in the order in which they are applied.
func (s Steps) All() []Step { return slices.Concat(s.Remove, s.Create, s.Attach) }

// Plain returns every step without what Apply needs, for rendering and status.
func (s Steps) Plain() []plan.Step {
	var out []plan.Step
	for _, step := range s.All() {
		out = append(out, step.Step)
	}
	return out
}

// planner holds what the parts of one Plan share.
type planner struct {
	want    Spec
	have    State
	trunk   Link // zero if the trunk is not there
	mtu     int  // of every link; 0 while the trunk, which says it, is missing
	alt     map[string]Link
	blocked map[string]bool // objects that cannot be had
	wanted  map[string]Kind // every wanted link
	steps   Steps
	gone    []Step // deletions of links, to go into Remove in the order ports, VLAN links, bridges
}

// Plan says what has to change so that what is there becomes what is wanted. It is pure: the same arguments give the same steps.
func Plan(want Spec, have State) Steps {
	p := &planner{want: want, have: have, alt: map[string]Link{}, blocked: map[string]bool{}, wanted: map[string]Kind{}}
	for _, l := range have.sorted() {
		for _, name := range l.AltNames {
			p.alt[name] = l
		}
	}
	for _, v := range want.VLANs {
		p.wanted[v.Name] = KindVLAN
	}
	for _, b := range want.Bridges {
		p.wanted[b.Name] = KindBridge
	}
	for _, port := range want.Ports {
		p.wanted[port.Name] = port.Kind
	}
	p.planTrunk()
	p.planNetfilter()
	for _, b := range want.Bridges {
		p.planBridge(b)
	}
	for _, v := range want.VLANs {
		p.planVLAN(v)
	}
	p.planNamespaces()
	for _, port := range want.Ports {
		p.planPort(port)
	}
	p.planRemoval()
	return p.steps
}

func (p *planner) planTrunk() {
	object := "trunk " + p.want.Trunk
	l, ok := p.have.Links[p.want.Trunk]
	if !ok {
		l, ok = p.alt[p.want.Trunk] // udev gives a NIC several names
	}
	if !ok {
		var waiting []string
		for _, v := range p.want.VLANs {
			waiting = append(waiting, v.Name)
		}
		s := blockedStep(object, "", p.trunkMissing())
		if len(waiting) > 0 {
			s.Detail = []string{"without it: " + strings.Join(waiting, " ")}
		}
		p.steps.Create = append(p.steps.Create, s)
		return
	}
	p.trunk, p.mtu = l, l.MTU
	if !l.Up {
		p.steps.Create = append(p.steps.Create, Step{
			Step: plan.Step{Subsystem: subsystem, Verb: plan.Update, Object: object, Detail: []string{"up"}},
			do:   setLink{name: l.Name, index: l.Index, state: stateUp},
		})
	}
}

func (p *planner) trunkMissing() string {
	var here []string
	for _, l := range p.have.sorted() {
		// What we made is no candidate, and nobody carries VLANs on these.
		if !l.ours() && l.Name != "lo" && !slices.Contains([]Kind{KindBridge, KindTap, KindVLAN}, l.Kind) {
			here = append(here, l.Name)
		}
	}
	if len(here) == 0 {
		here = []string{"none"}
	}
	if len(here) > maxListed {
		here = append(here[:maxListed], fmt.Sprintf("and %d more", len(here)-maxListed))
	}
	return fmt.Sprintf("trunk %s is not there: name the NIC that carries the VLANs in blades.<name>.trunk; links here: %s",
		p.want.Trunk, strings.Join(here, " "))
}

// planNetfilter tells of a setting that is not ours to change, because it holds for the bridges of others too.
func (p *planner) planNetfilter() {
	if len(p.have.Netfilter) == 0 {
		return
	}
	p.steps.Create = append(p.steps.Create, blockedStep("br_netfilter", "", fmt.Sprintf(
		"it hands the guests' frames to the host's own IP filter and connection tracking, whatever a bridge says: sysctl -w %s=0",
		strings.Join(p.have.Netfilter, "=0 "))))
}

// maxListed bounds the links that a reason lists.
const maxListed = 12

// free says whether a wanted name can be ours: nothing there, or something that we made. If not, the object is blocked.
func (p *planner) free(name, object string, guest policy.GuestName) (have Link, exists, ok bool) {
	if reason := badName(name); reason != "" {
		p.block(object, guest, reason)
		return Link{}, false, false
	}
	l, exists := p.have.Links[name]
	if exists && l.ours() {
		return l, true, true
	}
	if other, taken := p.alt[name]; taken && !exists {
		p.block(object, guest, fmt.Sprintf("link %s, which bladenet did not make, has %s as an alternative name: remove that name", other.Name, name))
		return Link{}, false, false
	}
	if exists {
		p.block(object, guest, fmt.Sprintf("a link named %s is there that bladenet did not make (%s): rename or delete it", name, describe(l)))
		return Link{}, false, false
	}
	return Link{}, false, true
}

func badName(name string) string {
	switch {
	case len(name) > maxName:
		return fmt.Sprintf("the name has %d bytes and a link's name holds %d", len(name), maxName)
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/:% \t\n"):
		return "the kernel takes no link of this name"
	}
	return ""
}

func describe(l Link) string {
	kind := kindName(l.Kind)
	if l.Alias != "" {
		kind += ", alias " + strconv.Quote(l.Alias)
	}
	return kind
}

func (p *planner) block(object string, guest policy.GuestName, reason string) {
	p.blocked[object] = true
	p.steps.Create = append(p.steps.Create, blockedStep(object, guest, reason))
}

func blockedStep(object string, guest policy.GuestName, reason string) Step {
	return Step{Step: plan.Step{Subsystem: subsystem, Verb: plan.Blocked, Object: object, Guest: string(guest), Reason: reason}}
}

func (p *planner) planBridge(b Bridge) {
	have, exists, ok := p.free(b.Name, b.Object(), "")
	if !ok {
		return
	}
	if exists && have.Kind != KindBridge {
		p.remove(have, "it is no bridge")
		exists = false
	}
	if !exists {
		detail := []string{"mac " + b.MAC.String()}
		if p.mtu != 0 {
			detail = append(detail, fmt.Sprintf("mtu %d", p.mtu))
		}
		p.create(b.Object(), "", detail, createBridge{Bridge: b, mtu: p.mtu})
		return
	}
	set := setLink{name: b.Name, index: have.Index}
	detail := p.common(&set, have, b.alias(), b.MAC)
	if d := bridgeDetail(have.Bridge); len(d) > 0 {
		set.bridge = have.Bridge
		detail = append(detail, d...)
	}
	if !have.Up {
		set.state = stateUp
		detail = append(detail, "up")
	}
	p.update(&p.steps.Create, b.Object(), "", detail, set)
}

func bridgeDetail(s BridgeState) []string {
	var out []string
	if s.STP {
		out = append(out, "stp off")
	}
	if s.ForwardDelay != 0 {
		out = append(out, fmt.Sprintf("forward delay %d -> 0", s.ForwardDelay))
	}
	if s.Snooping {
		out = append(out, "multicast snooping off")
	}
	if s.VLANFiltering {
		out = append(out, "vlan filtering off")
	}
	if s.CallIPTables {
		out = append(out, "br_netfilter off")
	}
	return out
}

func (p *planner) planVLAN(v VLAN) {
	if p.trunk.Name == "" {
		return // the trunk's own blocked step names the links that wait for it
	}
	have, exists, ok := p.free(v.Name, v.Object(), "")
	if !ok {
		return
	}
	if p.blocked["bridge "+v.Bridge] {
		p.block(v.Object(), "", "bridge "+v.Bridge+" is blocked")
		return
	}
	if other, taken := p.sameVLAN(v); taken {
		p.block(v.Object(), "", fmt.Sprintf("VLAN %d on %s is taken by link %s, which bladenet did not make: delete that link", v.ID, p.trunk.Name, other.Name))
		return
	}
	is, want := VLANState{ID: v.ID, Protocol: ethernet8021Q}, have.VLAN
	if exists && (have.Kind != KindVLAN || is != want || have.Parent != p.trunk.Name) {
		p.remove(have, fmt.Sprintf("it does not carry VLAN %d of %s", v.ID, p.trunk.Name))
		exists = false
	}
	if !exists {
		detail := []string{fmt.Sprintf("id %d on %s", v.ID, p.trunk.Name), "bridge " + v.Bridge, fmt.Sprintf("mtu %d", p.mtu)}
		p.create(v.Object(), "", detail, createVLAN{VLAN: v, trunk: p.trunk.Name, mtu: p.mtu}, "bridge "+v.Bridge)
		return
	}
	set := setLink{name: v.Name, index: have.Index}
	detail := p.common(&set, have, v.alias(), policy.MAC{})
	if have.Master != v.Bridge {
		set.master = v.Bridge
		detail = append(detail, fromTo("bridge", have.Master, v.Bridge))
	}
	if !have.Up {
		set.state = stateUp
		detail = append(detail, "up")
	}
	p.update(&p.steps.Create, v.Object(), "", detail, set, "bridge "+v.Bridge)
}

// sameVLAN finds a foreign link that carries the VLAN on the trunk already: the kernel allows one.
func (p *planner) sameVLAN(v VLAN) (Link, bool) {
	for _, l := range p.have.sorted() {
		if l.Kind == KindVLAN && !l.ours() && l.Parent == p.trunk.Name && l.VLAN == (VLANState{ID: v.ID, Protocol: ethernet8021Q}) {
			return l, true
		}
	}
	return Link{}, false
}

// common compares what every link of ours has; a zero MAC is not managed.
func (p *planner) common(set *setLink, have Link, alias string, mac policy.MAC) []string {
	var detail []string
	set.alias = alias
	if have.Alias != alias {
		set.mark = true
		detail = append(detail, "alias "+strconv.Quote(alias))
	}
	if p.mtu != 0 && have.MTU != p.mtu {
		set.mtu = p.mtu
		detail = append(detail, fromTo("mtu", strconv.Itoa(have.MTU), strconv.Itoa(p.mtu)))
	}
	if mac != (policy.MAC{}) && have.MAC != mac {
		set.mac = mac
		detail = append(detail, fromTo("mac", have.MAC.String(), mac.String()))
	}
	if have.IPv6 {
		set.quiet = true
		detail = append(detail, "ipv6 off")
	}
	return detail
}

// planRemoval deletes what is ours and not wanted: ports first, then VLAN links, bridges, and the namespaces of guests.
func (p *planner) planRemoval() {
	for _, l := range p.have.sorted() {
		if _, wanted := p.wanted[l.Name]; l.ours() && !wanted {
			p.remove(l, "")
		}
	}
	rank := func(s Step) int {
		return slices.Index([]Kind{KindVLAN, KindBridge}, s.do.(deleteLink).kind)
	}
	slices.SortStableFunc(p.gone, func(a, b Step) int { return rank(a) - rank(b) })
	p.steps.Remove = append(p.steps.Remove, p.gone...)
	var guests []policy.GuestName
	for guest := range p.have.Namespaces {
		if !slices.Contains(p.want.Namespaces, guest) {
			guests = append(guests, guest)
		}
	}
	slices.Sort(guests)
	for _, guest := range guests {
		p.steps.Remove = append(p.steps.Remove, step(plan.Delete, namespaceObject(guest), guest, nil, deleteNamespace{guest: guest}))
	}
}

func (p *planner) remove(l Link, reason string) {
	s := step(plan.Delete, kindName(l.Kind)+" "+l.Name, guestOf(l), nil, deleteLink{name: l.Name, index: l.Index, kind: l.Kind})
	s.Reason = reason
	p.gone = append(p.gone, s)
}

// guestOf reads the guest's name from a port's alias.
func guestOf(l Link) policy.GuestName {
	rest, ok := strings.CutPrefix(l.Alias, alias(l.Name, "port of "))
	if !ok {
		return ""
	}
	guest, _, _ := strings.Cut(rest, " ")
	return policy.GuestName(guest)
}

func (p *planner) create(object string, guest policy.GuestName, detail []string, do change, needs ...string) {
	s := step(plan.Create, object, guest, detail, do)
	s.needs = needs
	p.steps.Create = append(p.steps.Create, s)
}

func (p *planner) update(to *[]Step, object string, guest policy.GuestName, detail []string, do setLink, needs ...string) {
	if len(detail) == 0 {
		return
	}
	s := step(plan.Update, object, guest, detail, do)
	s.needs = needs
	*to = append(*to, s)
}

func step(verb plan.Verb, object string, guest policy.GuestName, detail []string, do change) Step {
	return Step{Step: plan.Step{Subsystem: subsystem, Verb: verb, Object: object, Guest: string(guest), Detail: detail}, do: do}
}

func fromTo(what, from, to string) string {
	if from == "" {
		return what + " " + to
	}
	if to == "" {
		to = "none"
	}
	return what + " " + from + " -> " + to
}
