package inside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
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

func observe(ctx context.Context, want policy.Inside) (State, error) {
	var s State
	var err error
	if s.Links, err = observeLinks(ctx); err != nil {
		return State{}, err
	}
	if s.Addresses, err = observeAddresses(ctx); err != nil {
		return State{}, err
	}
	if s.Routes, err = observeRoutes(ctx, want.Routes); err != nil {
		return State{}, err
	}
	s.Sysctls, err = observeSysctls(want.Sysctls)
	return s, err
}

func observeLinks(ctx context.Context) ([]Link, error) {
	out, err := whole(ctx, "links", func(yield func(Link)) error {
		return dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), decodeLink, yield)
	})
	slices.SortFunc(out, func(a, b Link) int { return a.Index - b.Index })
	return out, err
}

func observeAddresses(ctx context.Context) ([]Address, error) {
	return whole(ctx, "addresses", func(yield func(Address)) error {
		return dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC), decodeAddress, yield)
	})
}

// observeRoutes returns the routes that are ours, and those that stand where a wanted one belongs. A director learns many more.
func observeRoutes(ctx context.Context, want []policy.Route) ([]Route, error) {
	return whole(ctx, "routes", func(yield func(Route)) error {
		header := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_UNSPEC}}
		return dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header, decodeRoute, func(r Route) {
			wanted := slices.ContainsFunc(want, func(w policy.Route) bool { return w.Destination.Masked() == r.Destination })
			if wanted || r.Protocol == protocolStatic {
				yield(r)
			}
		})
	})
}

func observeSysctls(want []policy.Sysctl) (map[string]string, error) {
	out := map[string]string{}
	var files sysctls
	defer files.close()
	for _, s := range want {
		if !validSysctl(s.Key) {
			continue
		}
		value, err := files.read(s.Key)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // its interface is not there yet, or it can only be written
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl: %w", err)
		}
		out[s.Key] = strings.Join(strings.Fields(value), " ")
	}
	return out, nil
}

func sysctlPath(key string) string { return filepath.Join("/proc/sys", filepath.FromSlash(key)) }

// validSysctl says whether a key is one of a network namespace: any other would be the host's own.
func validSysctl(key string) bool {
	return strings.HasPrefix(key, "net/") && filepath.IsLocal(key) && filepath.Clean(key) == key
}
