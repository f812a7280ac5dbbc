package inside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/plan"
)

// change is what a step does. Its types are data; the model in the tests carries them out without a kernel.
type change interface{ apply(h *netlink.Handle) error }

// Apply does the steps in their order in the network namespace at the path ns, or in the caller's own if ns is empty. A step that fails stops
// only the steps that need its object; the errors of the others are joined in the plan's order. A cancelled context stops between two steps.
func Apply(ctx context.Context, ns string, steps []Step) error {
	if len(steps) == 0 {
		return nil
	}
	return enter(ns, func() error {
		h, err := openHandle()
		if err != nil {
			return fmt.Errorf("apply inside of %s: %w", steps[0].Guest, err)
		}
		defer h.Close()
		return applySteps(ctx, h, steps)
	})
}

// requestTimeout bounds the wait for one answer of the kernel.
const requestTimeout = 10 * time.Second

func openHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	if err := h.SetSocketTimeout(requestTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	return h, nil
}

func applySteps(ctx context.Context, h *netlink.Handle, steps []Step) error {
	failed := map[string]bool{}
	var errs []error
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("apply inside of %s: %w", step.Guest, err))...)
		}
		if step.Verb == plan.Blocked || waits(step, failed) {
			continue
		}
		if err := step.do.apply(h); err != nil {
			failed[step.Object] = true
			errs = append(errs, fmt.Errorf("%s %s: %w", step.Verb, step.Object, err))
		}
	}
	return errors.Join(errs...)
}

func waits(step Step, failed map[string]bool) bool {
	for _, need := range step.needs {
		if failed[need] {
			failed[step.Object] = true
			return true
		}
	}
	return false
}

func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// rename gives an interface another name. Kernels before 6.2 rename only what is down.
type rename struct {
	index int
	name  string
}

func (c rename) apply(h *netlink.Handle) error {
	if err := h.LinkSetDown(byIndex(c.index)); err != nil {
		return fmt.Errorf("set down: %w", err)
	}
	return h.LinkSetName(byIndex(c.index), c.name)
}

// setUp sets an interface up.
type setUp struct{ index int }

func (c setUp) apply(h *netlink.Handle) error { return h.LinkSetUp(byIndex(c.index)) }

// setSysctl writes a file below /proc/sys.
type setSysctl struct{ key, value string }

func (c setSysctl) apply(*netlink.Handle) error {
	f, err := os.OpenFile(sysctlPath(c.key), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: this kernel has no such setting, or its module is not loaded", err)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(c.value)
	return errors.Join(err, f.Close())
}

// removeAddress takes an address away.
type removeAddress struct {
	index  int
	prefix netip.Prefix
	peer   netip.Prefix
}

func (c removeAddress) apply(h *netlink.Handle) error {
	a := &netlink.Addr{IPNet: encodePrefix(c.prefix), Broadcast: net.IPv4zero}
	if c.peer.IsValid() {
		a.Peer = encodePrefix(c.peer)
	}
	err := h.AddrDel(byIndex(c.index), a)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil // gone with the subnet's first address
	}
	return err
}

// addAddress adds an address, IPv6 without waiting for duplicates: the filter on the host says who may speak for it.
type addAddress struct {
	index int
	address
}

func (c addAddress) apply(h *netlink.Handle) error {
	err := h.AddrAdd(byIndex(c.index), encodeAddress(c.address))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// setLifetime changes how long an address is valid and preferred.
type setLifetime struct {
	index int
	address
}

func (c setLifetime) apply(h *netlink.Handle) error {
	return h.AddrReplace(byIndex(c.index), encodeAddress(c.address))
}

func encodeAddress(a address) *netlink.Addr {
	forever := uint32(math.MaxUint32)
	out := &netlink.Addr{IPNet: encodePrefix(a.prefix), Broadcast: net.IPv4zero, ValidLft: int(forever)}
	if a.broadcast.IsValid() {
		out.Broadcast = a.broadcast.AsSlice()
	}
	if a.preferred {
		out.PreferedLft = int(forever)
	}
	if a.prefix.Addr().Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// setRoute adds a route, or puts it in the place of the one with its destination and metric.
type setRoute struct{ Route }

func (c setRoute) apply(h *netlink.Handle) error { return h.RouteReplace(encodeRoute(c.Route)) }

// removeRoute takes a route away.
type removeRoute struct{ Route }

func (c removeRoute) apply(h *netlink.Handle) error {
	err := h.RouteDel(encodeRoute(c.Route))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func encodeRoute(r Route) *netlink.Route {
	out := &netlink.Route{
		LinkIndex: r.Link, Dst: encodePrefix(r.Destination), Priority: r.Metric, Protocol: netlink.RouteProtocol(r.Protocol),
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST,
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	return out
}

func encodePrefix(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
