package hostagent

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
)

// difference is the way from one wanted state of a blade to another, object by object, in the order of a pass. It looks at
// nothing but the two.
func difference(from, to policy.Blade) []plan.Step {
	var removed, changed []plan.Step
	for _, kind := range []func(policy.Blade) []object{guestObjects, linkObjects, filterObjects, insideObjects, directorObjects} {
		gone, rest := compare(kind(from), kind(to))
		removed = append(removed, gone...)
		changed = append(changed, rest...)
	}
	return append(removed, changed...)
}

// object is one thing that a blade has: its step as it would be made, what it must be, and how to say what differs.
type object struct {
	step    plan.Step
	body    any
	changes func(from, to any) []string // nil: not said
}

func (o object) key() string { return o.step.Subsystem + " " + o.step.Object }

func compare(from, to []object) (removed, changed []plan.Step) {
	before := map[string]object{}
	for _, o := range from {
		before[o.key()] = o
	}
	for _, o := range to {
		was, ok := before[o.key()]
		delete(before, o.key())
		step := o.step
		switch {
		case !ok:
			step.Verb = plan.Create
		case reflect.DeepEqual(was.body, o.body):
			continue
		default:
			step.Verb = plan.Update
			if o.changes != nil {
				step.Detail = o.changes(was.body, o.body)
			}
		}
		changed = append(changed, step)
	}
	for _, o := range from {
		if _, gone := before[o.key()]; gone {
			o.step.Verb = plan.Delete
			removed = append(removed, o.step)
		}
	}
	return removed, changed
}

func guestObjects(b policy.Blade) []object {
	var out []object
	for _, g := range b.Guests {
		spec := guests.Define(g, g.Image) // the name of an image stands for whichever is newest
		out = append(out, object{
			step:    plan.Step{Subsystem: "guests", Object: spec.Object(), Guest: string(g.Name)},
			body:    spec,
			changes: func(from, to any) []string { return from.(guests.Spec).Changes(to.(guests.Spec)) },
		})
	}
	return out
}

func linkObjects(b policy.Blade) []object {
	spec := bridges.Wanted(b)
	var out []object
	add := func(name, guest string, body any) {
		out = append(out, object{step: plan.Step{Subsystem: "links", Object: name, Guest: guest}, body: body})
	}
	for _, v := range spec.VLANs {
		add(v.Object(), "", []any{v, spec.Trunk})
	}
	for _, x := range spec.Bridges {
		add(x.Object(), "", x)
	}
	for _, p := range spec.Ports {
		add(p.Object(), string(p.Guest), p)
	}
	return out
}

func filterObjects(b policy.Blade) []object {
	var out []object
	for _, t := range filter.Compile(b).Tables {
		where := string(t.Family) + " " + t.Name + " "
		for _, s := range t.Sets {
			out = append(out, object{step: plan.Step{Subsystem: "filter", Object: "set " + where + s.Name}, body: s, changes: elementChanges})
		}
		for _, c := range t.Chains {
			out = append(out, object{step: plan.Step{Subsystem: "filter", Object: "chain " + where + c.Name}, body: c, changes: ruleChanges})
		}
	}
	return out
}

func elementChanges(from, to any) []string {
	had, has := from.(filter.Set).Elements, to.(filter.Set).Elements
	return []string{fmt.Sprintf("%d elements to add, %d to delete", missing(has, had), missing(had, has))}
}

// missing counts the elements of a set that another does not have.
func missing(of, in []filter.Element) int {
	there := map[filter.Element]bool{}
	for _, e := range in {
		there[e] = true
	}
	n := 0
	for _, e := range of {
		if !there[e] {
			n++
		}
	}
	return n
}

func ruleChanges(from, to any) []string {
	return []string{fmt.Sprintf("%d -> %d rules", len(from.(filter.Chain).Rules), len(to.(filter.Chain).Rules))}
}

func insideObjects(b policy.Blade) []object {
	var out []object
	for _, g := range b.Guests {
		if g.Driver == policy.DriverLXC {
			out = append(out, object{
				step: plan.Step{Subsystem: "inside", Object: "network of " + string(g.Name), Guest: string(g.Name)}, body: g.Inside, changes: insideChanges,
			})
		}
	}
	return out
}

// insideChanges says which VIPs come and go, and which other parts differ.
func insideChanges(from, to any) []string {
	had, has := from.(policy.Inside), to.(policy.Inside)
	var out []string
	for _, v := range has.VIPs {
		if !hasVIP(had.VIPs, v) {
			out = append(out, "add VIP "+v.Address.String())
		}
	}
	for _, v := range had.VIPs {
		if !hasVIP(has.VIPs, v) {
			out = append(out, "delete VIP "+v.Address.String())
		}
	}
	parts := []struct {
		name     string
		had, has any
	}{{"interfaces", had.Interfaces, has.Interfaces}, {"routes", had.Routes, has.Routes}, {"sysctls", had.Sysctls, has.Sysctls}, {"hostname", had.Hostname, has.Hostname}}
	for _, p := range parts {
		if !reflect.DeepEqual(p.had, p.has) {
			out = append(out, p.name)
		}
	}
	return out
}

func hasVIP(list []policy.VIP, v policy.VIP) bool {
	return slices.ContainsFunc(list, func(x policy.VIP) bool { return x.Address == v.Address })
}

func directorObjects(b policy.Blade) []object {
	var out []object
	for _, g := range b.Guests {
		if g.Driver == policy.DriverKVM {
			out = append(out, object{
				step: plan.Step{Subsystem: "director", Object: "state of " + string(g.Name), Guest: string(g.Name)}, body: stateDigest(g),
				changes: func(from, to any) []string { return []string{from.(string) + " -> " + to.(string)} },
			})
		}
	}
	return out
}
