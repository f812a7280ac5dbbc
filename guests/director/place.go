package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Namespace is the director's own network namespace, by guests/inside.
type Namespace struct{ Path string } // empty: the caller's own

// Loopback returns the addresses that are on the loopback now, its own not among them.
func (n Namespace) Loopback(ctx context.Context) ([]netip.Addr, error) {
	s, err := inside.Observe(ctx, n.Path, policy.Inside{})
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
func (n Namespace) Converge(ctx context.Context, want policy.Inside) ([]plan.Step, error) {
	have, err := inside.Observe(ctx, n.Path, want)
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
	return done, errors.Join(append(errs, inside.Apply(ctx, n.Path, steps))...)
}

// Watch calls changed after every change of an address or an interface until ctx ends, or until the kernel drops events, which
// is a change too and the error. It says nothing of what changed: that is read back.
func (n Namespace) Watch(ctx context.Context, changed func()) error {
	at := netns.None()
	if n.Path != "" {
		var err error
		if at, err = netns.GetFromPath(n.Path); err != nil {
			return fmt.Errorf("watch addresses: %w", err)
		}
		defer at.Close()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	failed := func(err error) { cancel(err) }
	addrs, links := make(chan netlink.AddrUpdate, 64), make(chan netlink.LinkUpdate, 64)
	opts := netlink.AddrSubscribeOptions{ErrorCallback: failed}
	lopts := netlink.LinkSubscribeOptions{ErrorCallback: failed}
	if n.Path != "" {
		opts.Namespace, lopts.Namespace = &at, &at
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), opts); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), lopts); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	for {
		ok := true
		select {
		case <-ctx.Done():
			ok = false
		case _, ok = <-addrs:
		case _, ok = <-links:
		}
		changed()
		if !ok {
			return context.Cause(ctx)
		}
	}
}
