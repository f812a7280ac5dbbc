package inside

import (
	"context"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// uplink is the interface on which addresses may float: a program inside puts them there and takes them away again.
const uplink = "eth0"

// floats says whether an address of an interface is somebody else's business. It has its full length: an interface's own has its subnet's.
func (p *planner) floats(name string, prefix netip.Prefix) bool {
	return name == uplink && prefix.IsSingleIP() && slices.Contains(p.want.Floating, prefix.Addr())
}

// Floating returns the addresses that float on eth0 now in the network namespace at the path ns, or in the caller's own if ns is empty,
// whoever put them there.
func Floating(ctx context.Context, ns string) ([]netip.Addr, error) {
	s, err := Observe(ctx, ns, policy.Inside{})
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range s.floating() {
		out = append(out, a.Prefix.Addr())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// DropFloating takes them all away: who kept them is dead, and its kernel would go on answering for them.
func DropFloating(ctx context.Context, ns string) error {
	s, err := Observe(ctx, ns, policy.Inside{})
	if err != nil {
		return err
	}
	var steps []Step
	for _, a := range s.floating() {
		steps = append(steps, Step{
			Step: plan.Step{Subsystem: Subsystem, Verb: plan.Delete, Object: addressObject(a.Prefix, uplink)},
			do:   removeAddress{index: a.Link, prefix: a.Prefix, peer: a.Peer},
		})
	}
	return Apply(ctx, ns, steps)
}

func (s State) floating() []Address {
	link, ok := s.named(uplink)
	if !ok {
		return nil
	}
	var out []Address
	for _, a := range s.Addresses {
		if a.Link == link.Index && a.Prefix.IsSingleIP() && !a.Prefix.Addr().IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	return out
}
