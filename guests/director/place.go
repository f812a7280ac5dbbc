package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Namespace is the network namespace of this process, by guests/inside.
type Namespace struct{}

// ownNamespace is how guests/inside names its caller's own.
const ownNamespace = ""

// Loopback returns the addresses that are on the loopback now, its own not among them.
func (Namespace) Loopback(ctx context.Context) ([]netip.Addr, error) {
	s, err := inside.Observe(ctx, ownNamespace, policy.Inside{})
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, l := range s.Links {
		if l.Name != "lo" {
			continue
		}
		for _, a := range s.Addresses {
			if a.Link == l.Index && !a.Prefix.Addr().IsLoopback() {
				out = append(out, a.Prefix.Addr())
			}
		}
	}
	return out, nil
}

// Converge makes the namespace as want says and returns the steps that it took. A step that is blocked is an error.
func (Namespace) Converge(ctx context.Context, want policy.Inside) ([]plan.Step, error) {
	have, err := inside.Observe(ctx, ownNamespace, want)
	if err != nil {
		return nil, err
	}
	steps := inside.Plan(want, have)
	var done []plan.Step
	var errs []error
	for _, s := range steps {
		if s.Verb == plan.Blocked {
			errs = append(errs, fmt.Errorf("%s is blocked: %s", s.Object, s.Reason))
			continue
		}
		done = append(done, s.Step)
	}
	return done, errors.Join(append(errs, inside.Apply(ctx, ownNamespace, steps))...)
}

// Watch is inside.Watch.
func (Namespace) Watch(ctx context.Context, changed func()) error {
	return inside.Watch(ctx, ownNamespace, changed)
}
