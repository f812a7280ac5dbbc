package filter

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Compile writes the blade's policy as rules. The same blade gives the same ruleset, element for element.
func Compile(b policy.Blade) Ruleset {
	c := newCompiler(b)
	c.fillPorts()
	c.fillVIPs()
	c.fillSync()
	c.fillPair()
	c.fillFlows()
	bridge := Table{Family: Bridge, Name: BridgeTable, Counters: counters(BridgeReasons())}
	bridge.Chains = slices.Concat(
		denyChains(BridgeReasons()),
		guardChains(),
		admitChains(),
		c.ruleChains(),
		vipChains(),
		forwardChains(),
		localChains(),
	)
	bridge.Sets = slices.Concat(c.finishSets(), hitSets(BridgeReasons()), meterSets())
	slices.SortFunc(bridge.Sets, func(a, b Set) int { return cmp.Compare(a.Name, b.Name) })
	return Ruleset{Tables: []Table{bridge, hostTable(b)}}
}

// compiler gathers the elements of the bridge table's sets.
type compiler struct {
	b         policy.Blade
	sets      map[string]*Set
	segments  map[policy.NetworkName]policy.Segment
	behind    map[policy.GuestName]policy.Peer // eth1 of every guest of the zone
	directors []policy.Peer                    // those of directors
	pair      []policy.Peer                    // eth0 of those that announce by VRRP
}

func newCompiler(b policy.Blade) *compiler {
	c := &compiler{b: b, sets: map[string]*Set{}, segments: map[policy.NetworkName]policy.Segment{}, behind: map[policy.GuestName]policy.Peer{}}
	for _, s := range layout() {
		c.sets[s.Name] = &s
	}
	for _, s := range b.Segments {
		c.segments[s.Network] = s
	}
	for _, p := range b.Peers {
		if p.VRRP != nil {
			c.pair = append(c.pair, p)
		}
		if p.Interface != "eth1" {
			continue
		}
		c.behind[p.Guest] = p
		if p.Role == policy.RoleDirector {
			c.directors = append(c.directors, p)
		}
	}
	return c
}

// add puts an exact element into a set.
func (c *compiler) add(set string, parts ...[]byte) {
	s := c.sets[set]
	s.Elements = append(s.Elements, Element{From: key(parts...)})
}

// addSpan puts an element into an interval set; each part spans from its first to its last value.
func (c *compiler) addSpan(set string, parts ...span) {
	from, to := make([][]byte, len(parts)), make([][]byte, len(parts))
	for i, p := range parts {
		from[i], to[i] = p.first, p.last
	}
	s := c.sets[set]
	s.Elements = append(s.Elements, Element{From: key(from...), To: key(to...)})
}

// finishSets sorts every set's elements and drops repetitions: two services of one VIP name it twice.
func (c *compiler) finishSets() []Set {
	var out []Set
	for _, s := range c.sets {
		slices.SortFunc(s.Elements, compareElements)
		s.Elements = slices.Compact(s.Elements)
		out = append(out, *s)
	}
	return out
}

func compareElements(a, b Element) int {
	return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Goto, b.Goto))
}

func counters(reasons []Reason) []string {
	var out []string
	for _, r := range reasons {
		out = append(out, string(r))
	}
	slices.Sort(out)
	return out
}

const denyPrefix = "deny-"

func denyChain(r Reason) string { return denyPrefix + string(r) }

// DenyReason says for which reason a chain drops, if it is one that does nothing else.
func DenyReason(chain string) (Reason, bool) {
	r, ok := strings.CutPrefix(chain, denyPrefix)
	if !ok {
		return "", false
	}
	return Reason(r), true
}

func hitSet(r Reason) string { return hitPrefix + string(r) }

const hitPrefix = "hit-"

// HitReason says for which reason a set counts drops by port, if it is one that does.
func HitReason(set string) (Reason, bool) {
	r, ok := strings.CutPrefix(set, hitPrefix)
	return Reason(r), ok
}

// maxPorts is the size of sets that rules fill with a blade's ports.
const maxPorts = 4096

// hitSets count drops per port. They fill themselves, so that no guest costs elements for reasons it never meets.
func hitSets(reasons []Reason) []Set {
	var out []Set
	for _, r := range reasons {
		out = append(out, Set{Name: hitSet(r), Key: []Field{InPort}, Dynamic: true, Size: maxPorts})
	}
	return out
}

// denyChains count and drop. Counting and dropping are rules of their own: a full set ends its rule, and the drop must follow.
func denyChains(reasons []Reason) []Chain {
	var out []Chain
	for _, r := range reasons {
		out = append(out, Chain{Name: denyChain(r), Rules: []Rule{
			rule(Count{Counter: string(r)}),
			rule(Hit{Field: InPort, Set: hitSet(r)}),
			rule(Hit{Field: OutPort, Set: hitSet(r)}),
			rule(Decide{Kind: Drop}),
		}})
	}
	return out
}
