package filter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// Outcome is what becomes of a packet on every way that it can take through the fleet.
type Outcome struct {
	Ways []Way // no way: no blade stands between the two ends
}

// Way is the hops of a packet, one for each bridge that it crosses, up to the one that drops it.
type Way struct {
	Hops []Hop
}

// Hop is one bridge of one blade and its verdict.
type Hop struct {
	Blade   policy.BladeName
	In, Out string
	Verdict Verdict
}

// Accept says whether the way leads to its end.
func (w Way) Accept() bool { return len(w.Hops) > 0 && w.Last().Verdict.Accept }

// Last is the hop that decides: the one that drops the packet, else the last one.
func (w Way) Last() Hop { return w.Hops[len(w.Hops)-1] }

// Accepted and Dropped say whether the packet passes on every way, or on none.
func (o Outcome) Accepted() bool { return len(o.Ways) > 0 && !slices.ContainsFunc(o.Ways, Way.refuses) }

func (o Outcome) Dropped() bool { return len(o.Ways) > 0 && !slices.ContainsFunc(o.Ways, Way.Accept) }

func (w Way) refuses() bool { return !w.Accept() }

// CheckExpectations judges the tests that the policy has of itself. The fleet must have passed its check.
func CheckExpectations(f *policy.Fleet) policy.Diagnostics {
	var out policy.Diagnostics
	e := NewExplainer(f)
	for _, x := range f.Expectations {
		o := e.Explain(x)
		if len(o.Ways) == 0 {
			// So it is in a fleet whose guests are still to be spawned: nothing contradicts the expectation, and nothing shows it.
			out = append(out, policy.Diagnostic{
				Severity: policy.SeverityWarning, Pos: x.Pos, Message: "not judged: no blade stands between the two yet",
			})
			continue
		}
		if message, pos := disagree(x, o); message != "" {
			d := policy.Diagnostic{Severity: policy.SeverityError, Pos: x.Pos, Message: message}
			if pos != (policy.Pos{}) {
				d.Other = []policy.Related{{Pos: pos, Message: "decided here"}}
			}
			out = append(out, d)
		}
	}
	return f.WithSource(out)
}

// disagree says how an outcome differs from what is expected, and which line of policy decided.
func disagree(x policy.Expectation, o Outcome) (string, policy.Pos) {
	holds := func(w Way) bool { return w.Accept() == (x.Verdict == policy.Accept) }
	i := slices.IndexFunc(o.Ways, func(w Way) bool { return !holds(w) })
	if i < 0 {
		return "", policy.Pos{}
	}
	got := o.Ways[i].Last()
	if x.Verdict == policy.Accept {
		return fmt.Sprintf("expected accept, but %s drops it from %s to %s: %s (%s)", got.Blade, got.In, got.Out, got.Verdict.Rule, got.Verdict.Reason), got.Verdict.Pos
	}
	return fmt.Sprintf("expected drop, but it passes: %s lets it through from %s to %s by %s", got.Blade, got.In, got.Out, got.Verdict.Rule), got.Verdict.Pos
}

// Explainer follows packets through a fleet. It derives a blade when a packet first comes there, so that a question costs what
// lies on its way and not the whole fleet.
type Explainer struct {
	fleet  *policy.Fleet
	blades map[policy.BladeName]policy.Blade
	guests map[netip.Addr]policy.GuestName
}

// NewExplainer prepares to follow packets through a fleet that has passed its check.
func NewExplainer(f *policy.Fleet) *Explainer {
	e := &Explainer{fleet: f, blades: map[policy.BladeName]policy.Blade{}, guests: map[netip.Addr]policy.GuestName{}}
	for _, g := range f.Guests() {
		for _, a := range slices.Concat(g.Eth0.Addresses, g.Eth1.Addresses) {
			e.guests[a] = g.Name
		}
	}
	return e
}

// blade derives a blade once. A fleet that has passed its check has every blade that its guests name.
func (e *Explainer) blade(name policy.BladeName) policy.Blade {
	b, ok := e.blades[name]
	if !ok {
		b, _ = policy.Derive(e.fleet, name)
		e.blades[name] = b
	}
	return b
}

// routerMAC stands for whatever router or switch a frame comes from or goes to.
var routerMAC = policy.MAC{0x02, 0, 0x5e, 0, 0, 1}

// ephemeral is the source port of a packet that names none.
const ephemeral = 40000

// Explain follows the packet of an expectation, whatever verdict it expects.
func (e *Explainer) Explain(x policy.Expectation) Outcome {
	if x.To.Blade != "" {
		return e.toBlade(x)
	}
	var out Outcome
	for _, legs := range e.ways(x) {
		var w Way
		for _, l := range legs {
			v := Judge(l.blade, l.packet)
			w.Hops = append(w.Hops, Hop{Blade: l.blade.Name, In: l.packet.In, Out: l.packet.Out, Verdict: v})
			if !v.Accept {
				break
			}
		}
		if len(w.Hops) > 0 {
			out.Ways = append(out.Ways, w)
		}
	}
	return out
}

// toBlade judges what reaches a blade's own stack: what hosts rules allow, on its management NIC.
func (e *Explainer) toBlade(x policy.Expectation) Outcome {
	b := e.blade(x.To.Blade)
	source := x.From.Address
	if x.As.IsValid() {
		source = x.As
	}
	v := JudgeHost(b, source, x.Protocol, x.Port)
	if _, guest := e.sender(x, netip.Addr{}); guest {
		v = drop(HostFromGuest, "nothing from a guest's network reaches a blade")
	}
	return Outcome{Ways: []Way{{Hops: []Hop{{Blade: b.Name, In: b.Management, Verdict: v}}}}}
}

// JudgeHost says whether a blade's own stack takes a new connection from an address on its management NIC.
func JudgeHost(b policy.Blade, from netip.Addr, protocol policy.Protocol, port uint16) Verdict {
	if b.Management == "" || len(b.Hosts) == 0 {
		return allow("no hosts rule: the management NIC is left alone", policy.Pos{})
	}
	for _, r := range b.Hosts {
		named := r.FromAny || from.IsValid() && contains(r.From, from)
		if named && slices.ContainsFunc(r.Allow, func(a policy.PortRange) bool {
			return a.Protocol == protocol && a.First <= port && port <= a.Last
		}) {
			return allow("hosts rule "+r.Name, r.Pos)
		}
	}
	return drop(HostPolicy, "no hosts rule allows it")
}
