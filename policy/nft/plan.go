package nft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
)

// subsystem is this part's name in plans and logs.
const subsystem = "filter"

// Step is one change to a table. Apply does all of a plan's steps in one transaction.
type Step struct {
	plan.Step
	table   filter.Table
	replace bool   // the whole table
	keep    counts // counters to put back into a replaced table
	set     filter.Set
	add     []filter.Element
	remove  []filter.Element
}

// Wanted is a ruleset in the form in which it is compared with what the kernel holds.
type Wanted struct {
	Ruleset filter.Ruleset
	static  [][]part // by table
}

// Prepare brings a ruleset into that form. Tables whose chains are those of an earlier ruleset, which may be none, are not encoded anew: to
// compare rules is cheap beside it.
func Prepare(want filter.Ruleset, earlier Wanted) (Wanted, error) {
	out := Wanted{Ruleset: want}
	for i, t := range want.Tables {
		name := tableName{t.Family, t.Name}
		if !slices.Contains(ourTables(), name) {
			return Wanted{}, fmt.Errorf("plan table %s: not ours", name)
		}
		if i < len(earlier.static) && sameStatic(t, earlier.Ruleset.Tables[i]) {
			out.static = append(out.static, earlier.static[i])
			continue
		}
		static, err := wantedStatic(t)
		if err != nil {
			return Wanted{}, fmt.Errorf("plan table %s: %w", name, err)
		}
		out.static = append(out.static, static)
	}
	return out, nil
}

// sameStatic says whether two tables differ in elements only.
func sameStatic(a, b filter.Table) bool {
	bare := func(s filter.Set) filter.Set {
		s.Elements = nil
		return s
	}
	sameSet := func(x, y filter.Set) bool { return reflect.DeepEqual(bare(x), bare(y)) }
	return a.Family == b.Family && a.Name == b.Name && slices.Equal(a.Counters, b.Counters) && slices.EqualFunc(a.Sets, b.Sets, sameSet) &&
		reflect.DeepEqual(a.Chains, b.Chains)
}

// Plan compares what the kernel must hold with what it holds. Where the static part of a table is as wanted, only elements
// change; otherwise the table is replaced as a whole, with its counters' values. The same arguments give the same steps.
func Plan(want filter.Ruleset, have State) ([]Step, error) {
	w, err := Prepare(want, Wanted{})
	return w.Plan(have), err
}

// Plan is the function of that name for a ruleset that was prepared.
func (w Wanted) Plan(have State) []Step {
	var steps []Step
	for i, t := range w.Ruleset.Tables {
		name, static := tableName{t.Family, t.Name}, w.static[i]
		held, ok := have.tables[name]
		if !ok {
			steps = append(steps, replaceStep(t, plan.Create, "", counts{}))
			continue
		}
		left := leftPorts(t, held)
		if reason := difference(static, held.static); reason != "" {
			steps = append(steps, replaceStep(t, plan.Update, reason, held.counts.without(left)))
			continue
		}
		for _, s := range t.Sets {
			step, changed := elementStep(t, s, held.elements[s.Name])
			if s.Dynamic {
				step, changed = forgetStep(t, s, held.counts.hits[s.Name], left)
			}
			if changed {
				steps = append(steps, step)
			}
		}
	}
	return steps
}

func replaceStep(t filter.Table, verb plan.Verb, reason string, keep counts) Step {
	elements, rules := 0, 0
	for _, s := range t.Sets {
		elements += len(s.Elements)
	}
	for _, c := range t.Chains {
		rules += len(c.Rules)
	}
	return Step{
		Step: plan.Step{
			Subsystem: subsystem, Verb: verb, Object: "table " + tableName{t.Family, t.Name}.String(), Reason: reason,
			Detail: []string{fmt.Sprintf("%d chains", len(t.Chains)), fmt.Sprintf("%d rules", rules), fmt.Sprintf("%d elements", elements)},
		},
		table: t, replace: true, keep: keep,
	}
}

func setStep(t filter.Table, s filter.Set) Step {
	return Step{table: t, set: s, Step: plan.Step{
		Subsystem: subsystem, Verb: plan.Update, Object: fmt.Sprintf("set %s of %s %s", s.Name, t.Family, t.Name),
	}}
}

// leftPorts are the ports that the kernel's table names and the wanted one does not.
func leftPorts(t filter.Table, held tableState) map[string]bool {
	left := map[string]bool{}
	for e := range held.elements[filter.NamedPorts] {
		left[e.From] = true
	}
	for _, s := range t.Sets {
		if s.Name == filter.NamedPorts {
			for _, e := range s.Elements {
				delete(left, e.From)
			}
		}
	}
	return left
}

// forgetStep takes the counters of ports that left out of a dynamic set.
func forgetStep(t filter.Table, s filter.Set, hits map[string]count, left map[string]bool) (Step, bool) {
	step := setStep(t, s)
	for _, port := range sortedKeys(hits) {
		if e := (filter.Element{From: port}); left[port] {
			step.remove = append(step.remove, e)
			step.Detail = append(step.Detail, "- "+s.ElementText(e))
		}
	}
	return step, len(step.remove) > 0
}

// without returns the counts less those of some ports.
func (c counts) without(ports map[string]bool) counts {
	out := counts{named: c.named, hits: map[string]map[string]count{}}
	for set, hits := range c.hits {
		out.hits[set] = maps.Clone(hits)
		maps.DeleteFunc(out.hits[set], func(port string, _ count) bool { return ports[port] })
	}
	return out
}

// elementStep says what a set has too much and too little.
func elementStep(t filter.Table, s filter.Set, held map[filter.Element]bool) (Step, bool) {
	step := setStep(t, s)
	wanted := make(map[filter.Element]bool, len(s.Elements))
	for _, e := range s.Elements {
		wanted[e] = true
		if !held[e] {
			step.add = append(step.add, e)
			step.Detail = append(step.Detail, "+ "+s.ElementText(e))
		}
	}
	for e := range held {
		if !wanted[e] {
			step.remove = append(step.remove, e)
		}
	}
	slices.SortFunc(step.remove, compareElements)
	for _, e := range step.remove {
		step.Detail = append(step.Detail, "- "+s.ElementText(e))
	}
	return step, len(step.add)+len(step.remove) > 0
}

func compareElements(a, b filter.Element) int {
	return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Goto, b.Goto))
}

// wantedStatic is a table's static part in the form in which Observe reads it.
func wantedStatic(t filter.Table) ([]part, error) {
	var out []part
	for _, c := range t.Counters {
		out = append(out, counterPart(c))
	}
	for _, s := range t.Sets {
		shape := setShape{
			keyType: keyType(s.Key), keyLength: keyLength(s.Key), verdicts: s.Map, interval: s.Interval, dynamic: s.Dynamic, size: s.Size,
		}
		out = append(out, part{object: "set " + s.Name, body: setBody(shape)})
	}
	for _, c := range t.Chains {
		body := ""
		if c.Hook != "" {
			body = fmt.Sprintf("filter hook %d priority %d policy %d", hookNumber(c.Hook), c.Priority, nftables.ChainPolicyAccept)
		}
		out = append(out, part{object: "chain " + c.Name, body: body})
		for _, r := range c.Rules {
			body, err := wantedRule(t, r)
			if err != nil {
				return nil, err
			}
			out = append(out, part{object: "rule of chain " + c.Name, body: body})
		}
	}
	slices.SortStableFunc(out, compareParts)
	return out, nil
}

// wantedRule is a rule in the form in which Observe reads it.
func wantedRule(t filter.Table, r filter.Rule) (string, error) {
	var userData []byte
	if r.Comment != "" {
		userData = comment(r.Comment)
	}
	body, err := ruleBody(family(t.Family), lower(r), userData)
	if err != nil {
		return "", fmt.Errorf("encode rule %q: %w", r, err)
	}
	return body, nil
}

// difference names the first object that is not as wanted.
func difference(want, have []part) string {
	for i, w := range want {
		if i >= len(have) || compareParts(w, have[i]) < 0 {
			return w.object + " is missing"
		}
		if compareParts(w, have[i]) > 0 {
			return have[i].object + " is not ours"
		}
		if w.body != have[i].body {
			return w.object + " differs"
		}
	}
	if len(have) > len(want) {
		return have[len(want)].object + " is not ours"
	}
	return ""
}

// target reads the chain of a verdict map's element, which the library hands over undecoded.
func target(e nftables.SetElement) string {
	if len(e.Val) == 0 {
		return ""
	}
	ad, err := netlink.NewAttributeDecoder(e.Val)
	if err != nil {
		return "undecodable verdict"
	}
	ad.ByteOrder = binary.BigEndian
	chain, code := "", uint32(0)
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			code = ad.Uint32()
		case unix.NFTA_VERDICT_CHAIN:
			chain = string(bytes.TrimRight(ad.Bytes(), "\x00"))
		}
	}
	if code != verdictCode(filter.Goto) {
		return fmt.Sprintf("verdict %d %s", int32(code), chain)
	}
	return chain
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
