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
	"sync"
	"sync/atomic"

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

// Place is a network namespace, by its path, and what is wanted in it.
type Place struct {
	Namespace string
	Want      policy.Inside
}

// Seen is what was found in a place.
type Seen struct {
	State State
	Err   error
}

// mostLooks is how many namespaces are looked into at a time: the kernel's own locks let no more of them go on side by side.
const mostLooks = 4

// ObserveAll is Observe of many namespaces. A thread goes from one to the next: a blade has hundreds, and a thread of its own for each costs more
// than half of the look.
func ObserveAll(ctx context.Context, places []Place) []Seen {
	out := make([]Seen, len(places))
	var next atomic.Int64
	var threads sync.WaitGroup
	for range min(mostLooks, len(places)) {
		threads.Go(func() {
			runtime.LockOSThread() // the thread ends with this function
			for i := int(next.Add(1)) - 1; i < len(places); i = int(next.Add(1)) - 1 {
				p, seen := places[i], &out[i]
				err := move(p.Namespace)
				if err == nil {
					seen.State, err = observe(ctx, p.Want)
				}
				if err != nil {
					*seen = Seen{Err: fmt.Errorf("observe inside of %s: %w", p.Want.Hostname, err)}
				}
			}
		})
	}
	threads.Wait()
	return out
}

// move puts the calling thread, which the runtime must never reuse, into the network namespace at the path.
func move(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// enter runs f in the network namespace at the path. /proc/sys/net shows the namespace of the thread that opens it, so a socket opened in the
// namespace would not be enough. The thread ends with f: the runtime must never reuse it.
func enter(path string, f func() error) error {
	if path == "" {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := move(path); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func observe(ctx context.Context, want policy.Inside) (State, error) {
	var s State
	h, err := openSocket()
	if err != nil {
		return State{}, err
	}
	defer h.Socket.Close()
	if s.Links, err = observeLinks(ctx, h); err != nil {
		return State{}, err
	}
	if s.Addresses, err = observeAddresses(ctx, h); err != nil {
		return State{}, err
	}
	if s.Routes, err = observeRoutes(ctx, h, want.Routes); err != nil {
		return State{}, err
	}
	s.Sysctls, err = observeSysctls(want.Sysctls)
	return s, err
}

// openSocket opens an rtnetlink socket in the thread's network namespace.
func openSocket() (*nl.SocketHandle, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	timeout := nl.SocketTimeoutTv
	_ = socket.SetSendTimeout(&timeout) // both only store the value
	_ = socket.SetReceiveTimeout(&timeout)
	return &nl.SocketHandle{Socket: socket}, nil
}

func observeLinks(ctx context.Context, h *nl.SocketHandle) ([]Link, error) {
	out, err := whole(ctx, "links", func(yield func(Link)) error {
		return dump(h, unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), decodeLink, yield)
	})
	slices.SortFunc(out, func(a, b Link) int { return a.Index - b.Index })
	return out, err
}

func observeAddresses(ctx context.Context, h *nl.SocketHandle) ([]Address, error) {
	return whole(ctx, "addresses", func(yield func(Address)) error {
		return dump(h, unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC), decodeAddress, yield)
	})
}

// observeRoutes returns the routes that are ours, and those that stand where a wanted one belongs. A director learns many more.
func observeRoutes(ctx context.Context, h *nl.SocketHandle, want []policy.Route) ([]Route, error) {
	return whole(ctx, "routes", func(yield func(Route)) error {
		header := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_UNSPEC}}
		return dump(h, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header, decodeRoute, func(r Route) {
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
