package guests

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Step is one change to one guest with what a driver needs to make it.
type Step struct {
	plan.Step
	Driver policy.Driver    `json:"driver"`
	Name   policy.GuestName `json:"name"`
	Spec   Spec             `json:"-"` // create and update
}

// Steps are in the order in which they must be done. What removes a guest comes before its links go; what runs one comes after
// its links and rules are there.
type Steps struct {
	Remove []Step
	Run    []Step
}

// All returns the steps in order, as plan.Render takes them.
func (s Steps) All() []plan.Step {
	out := make([]plan.Step, 0, len(s.Remove)+len(s.Run))
	for _, step := range slices.Concat(s.Remove, s.Run) {
		out = append(out, step.Step)
	}
	return out
}

// Empty reports that there is nothing to do and nothing blocked.
func (s Steps) Empty() bool { return len(s.Remove) == 0 && len(s.Run) == 0 }

type key struct {
	driver policy.Driver
	name   policy.GuestName
}

// Plan says what turns have into want, in order: guests that nobody wants are stopped and destroyed, those that are to be
// off or that hang are stopped, then, directors first, missing ones are created and stopped ones started. A running guest whose definition
// changed is not restarted: the change is blocked until somebody stops it. The same input gives the same steps.
func Plan(want []policy.Guest, have State) Steps {
	var out Steps
	wanted := map[key]bool{}
	for _, g := range want {
		wanted[key{g.Driver, g.Name}] = true
	}
	found := map[key]Observed{}
	for _, o := range have.Guests {
		k := key{o.Driver, o.Name}
		found[k] = o
		switch {
		case o.Phase == Foreign:
		case !wanted[k]:
			out.Remove = append(out.Remove, remove(o)...)
		case (o.Phase == Running || o.Phase == Paused) && have.Held[o.Name].Off:
			out.Remove = append(out.Remove, step(o.Spec, plan.Stop, nil, have.Held[o.Name].Reason))
		case o.Phase == Running && have.Hung[o.Name] != "":
			out.Remove = append(out.Remove, step(o.Spec, plan.Stop, nil, have.Hung[o.Name]))
		}
	}
	for _, g := range inOrder(want) {
		o, ok := found[key{g.Driver, g.Name}]
		out.Run = append(out.Run, run(g, o, ok, have)...)
	}
	return out
}

// inOrder puts directors before real servers, so that after a power cut VIPs are announced while nodes still boot.
func inOrder(want []policy.Guest) []policy.Guest {
	rank := map[policy.Role]int{policy.RoleDirector: 0, policy.RoleRealServer: 1}
	return slices.SortedStableFunc(slices.Values(want), func(a, b policy.Guest) int {
		return cmp.Or(cmp.Compare(rank[a.Role], rank[b.Role]), cmp.Compare(a.Name, b.Name))
	})
}

func remove(o Observed) []Step {
	const why = "not in the policy"
	var out []Step
	if o.Phase == Running || o.Phase == Paused {
		out = append(out, step(o.Spec, plan.Stop, nil, why))
	}
	return append(out, step(o.Spec, plan.Delete, nil, why))
}

// run plans one wanted guest; ok says whether o was found.
func run(g policy.Guest, o Observed, ok bool, have State) []Step {
	image := have.Images[imageKey(g)]
	w := Define(g, image.ID)
	if why, down := have.Down[g.Driver]; down {
		return []Step{step(w, plan.Blocked, nil, why)}
	}
	if ok && o.Phase == Foreign {
		return []Step{step(w, plan.Blocked, nil, "the name is taken by one that bladenet did not make: rename it or the guest")}
	}
	if image.Problem != "" {
		if ok && o.Phase == Running {
			return nil // it needs its image only when it is made anew
		}
		return []Step{step(w, plan.Blocked, nil, image.Problem)}
	}
	if ok && o.Phase != Partial && isBuildOf(o.Image, g.Image) && !have.Held[w.Name].Reclone {
		w.Image = o.Image // a newer build waits until somebody asks for it: what stops by itself comes back as it was
	}
	changes := changesOf(o, w)
	held := have.Held[w.Name].Off
	switch {
	case held && (o.Phase == Running || o.Phase == Paused):
		return nil // it is stopped first
	case o.Phase == Running && have.Hung[w.Name] != "":
		return start(w, have)
	case !ok:
		return append([]Step{step(w, plan.Create, details(w), "")}, start(w, have)...)
	case o.Phase == Partial:
		return append([]Step{step(w, plan.Create, details(w), "an interrupted creation left it half made")}, start(w, have)...)
	case o.Phase == Paused && o.Resumes:
		return start(w, have)
	case o.Phase == Paused:
		return []Step{step(w, plan.Blocked, nil, cmp.Or(o.Reason, "paused")+": resume or stop it")}
	case o.Phase == Running && len(changes) > 0:
		return []Step{step(w, plan.Blocked, changes, "it runs: restart to apply")}
	case o.Phase == Running:
		return nil
	case len(changes) > 0:
		return append([]Step{step(w, plan.Update, changes, "")}, start(w, have)...)
	}
	return start(w, have)
}

func changesOf(o Observed, w Spec) []string {
	changes := o.Changes(w)
	if len(changes) == 0 && o.Stale {
		changes = []string{"definition was edited or written by another version"}
	}
	return changes
}

func start(w Spec, have State) []Step {
	h, held := have.Held[w.Name]
	switch {
	case !held:
		return []Step{step(w, plan.Start, nil, "")}
	case h.Off:
		return nil
	}
	return []Step{step(w, plan.Blocked, nil, fmt.Sprintf("%s; next start %s", h.Reason, h.Until.UTC().Format(time.TimeOnly)))}
}

func details(w Spec) []string {
	out := []string{"image " + w.Image, "memory " + Size(w.Memory), fmt.Sprintf("cpus %d", w.CPUs)}
	if w.IOWeight > 0 {
		out = append(out, fmt.Sprintf("io-weight %d", w.IOWeight))
	}
	if w.Disk > 0 {
		out = append(out, "disk "+Size(w.Disk))
	}
	for _, v := range w.Volumes {
		out = append(out, "volume "+volumeWords(v))
	}
	return out
}

func step(s Spec, verb plan.Verb, detail []string, reason string) Step {
	return Step{
		Step: plan.Step{
			Subsystem: "guests", Verb: verb, Object: s.Object(), Guest: string(s.Name),
			Detail: detail, Reason: reason,
		},
		Driver: s.Driver, Name: s.Name, Spec: s,
	}
}
