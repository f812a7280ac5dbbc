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
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// Observe reads back what is in the network namespace at the path ns, or in the caller's own if ns is empty. Of want only the sysctls count:
// they are the ones that are read.
func Observe(ctx context.Context, ns string, want policy.Inside) (State, error) {
	var s State
	err := enter(ns, func() (err error) {
		s, err = observe(ctx, want)
		return err
	})
	if err != nil {
		return State{}, fmt.Errorf("observe inside of %s: %w", want.Hostname, err)
	}
	return s, nil
}

// enter runs f in the network namespace at the path. /proc/sys/net shows the namespace of the thread that opens it, so a socket opened in the
// namespace would not be enough. The thread ends with f: the runtime must never reuse it.
func enter(path string, f func() error) error {
	if path == "" {
		return f()
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		result <- f()
	}()
	return <-result
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

func observe(ctx context.Context, want policy.Inside) (State, error) {
	h, err := openHandle()
	if err != nil {
		return State{}, err
	}
	defer h.Close()
	var s State
	if s.Links, err = observeLinks(ctx, h); err != nil {
		return State{}, err
	}
	if s.Addresses, err = observeAddresses(ctx, h); err != nil {
		return State{}, err
	}
	if s.Routes, err = observeRoutes(ctx, h); err != nil {
		return State{}, err
	}
	s.Sysctls, err = observeSysctls(want.Sysctls)
	return s, err
}

// dumpAttempts bounds the retries of a dump that other changes interrupt.
const dumpAttempts = 20

// whole repeats a dump until no change has interrupted it: an interrupted one may lack entries.
func whole[T any](ctx context.Context, what string, dump func() ([]T, error)) ([]T, error) {
	for attempt := 1; ; attempt++ {
		out, err := dump()
		if err == nil {
			return out, nil
		}
		interrupted := errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR)
		if !interrupted || attempt == dumpAttempts || ctx.Err() != nil {
			return nil, fmt.Errorf("list %s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}

func observeLinks(ctx context.Context, h *netlink.Handle) ([]Link, error) {
	links, err := whole(ctx, "links", h.LinkList)
	if err != nil {
		return nil, err
	}
	var out []Link
	for _, l := range links {
		a := l.Attrs()
		link := Link{Index: a.Index, Name: a.Name, Kind: l.Type(), Up: a.RawFlags&unix.IFF_UP != 0}
		copy(link.MAC[:], a.HardwareAddr)
		out = append(out, link)
	}
	slices.SortFunc(out, func(a, b Link) int { return a.Index - b.Index })
	return out, nil
}

func observeAddresses(ctx context.Context, h *netlink.Handle) ([]Address, error) {
	list, err := whole(ctx, "addresses", func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, err
	}
	var out []Address
	for _, a := range list {
		if prefix, ok := decodePrefix(a.IPNet); ok {
			out = append(out, decodeAddress(a, prefix))
		}
	}
	return out, nil
}

func decodeAddress(a netlink.Addr, prefix netip.Prefix) Address {
	out := Address{Link: a.LinkIndex, Prefix: prefix, Lasting: a.ValidLft == math.MaxUint32}
	out.Peer, _ = decodePrefix(a.Peer)
	if b, ok := netip.AddrFromSlice(a.Broadcast); ok {
		out.Broadcast = b.Unmap()
	}
	if prefix.Addr().Is4() {
		out.Preferred = true
		out.Secondary = a.Flags&unix.IFA_F_SECONDARY != 0
	} else {
		out.Preferred = a.PreferedLft != 0
		out.Failed = a.Flags&(unix.IFA_F_DADFAILED|unix.IFA_F_TENTATIVE) != 0
	}
	return out
}

func decodePrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones), ok
}

func observeRoutes(ctx context.Context, h *netlink.Handle) ([]Route, error) {
	var out []Route
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := whole(ctx, "routes", func() ([]netlink.Route, error) { return h.RouteList(nil, family) })
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.Type == unix.RTN_UNICAST {
				out = append(out, decodeRoute(r, family))
			}
		}
	}
	return out, nil
}

func decodeRoute(r netlink.Route, family int) Route {
	out := Route{Metric: r.Priority, Link: r.LinkIndex, Protocol: int(r.Protocol)}
	if dst, ok := decodePrefix(r.Dst); ok {
		out.Destination = dst
	} else if family == unix.AF_INET {
		out.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	} else {
		out.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Via = gw.Unmap()
	}
	return out
}

func observeSysctls(want []policy.Sysctl) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range want {
		if !validSysctl(s.Key) {
			continue
		}
		b, err := os.ReadFile(sysctlPath(s.Key))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // its interface is not there yet, or it can only be written
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl: %w", err)
		}
		out[s.Key] = strings.Join(strings.Fields(string(b)), " ")
	}
	return out, nil
}

func sysctlPath(key string) string { return filepath.Join("/proc/sys", filepath.FromSlash(key)) }

// validSysctl says whether a key is one of a network namespace: any other would be the host's own.
func validSysctl(key string) bool {
	return strings.HasPrefix(key, "net/") && filepath.IsLocal(key) && filepath.Clean(key) == key
}
