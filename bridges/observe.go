package bridges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// nsfsMagic is what statfs says of a mounted namespace (NSFS_MAGIC of linux/magic.h).
const nsfsMagic = 0x6e736673

// Observe reads back every link, and which guests' namespaces are there with which ends of veths in them.
func (k *Kernel) Observe(ctx context.Context) (State, error) {
	s, err := k.open()
	if err != nil {
		return State{}, fmt.Errorf("observe links: %w", err)
	}
	defer s.close()
	// Namespaces first: a veth that is made in between is then seen without its other end, and that costs one repair at most.
	guests, err := k.observeNamespaces()
	if err != nil {
		return State{}, fmt.Errorf("observe links: %w", err)
	}
	links, err := dump(ctx, s.handle)
	if err != nil {
		return State{}, fmt.Errorf("observe links: %w", err)
	}
	pins, err := s.pins(ctx)
	if err != nil {
		return State{}, fmt.Errorf("observe links: %w", err)
	}
	for i, l := range links {
		links[i].Port.Pinned = pins[l.Index]
	}
	state := State{Links: named(links), Namespaces: guests}
	if state.Netfilter, err = k.observeNetfilter(); err != nil {
		return State{}, fmt.Errorf("observe links: %w", err)
	}
	veths := map[policy.GuestName][]string{}
	for name, l := range state.Links {
		if l.Kind == KindVeth {
			veths[guestOf(l)] = append(veths[guestOf(l)], name)
		}
	}
	for guest, ns := range guests {
		if !ns.Ready {
			continue
		}
		err := k.observeInside(state.Links, guest, veths[guest])
		if errors.Is(err, fs.ErrNotExist) {
			delete(guests, guest)
			continue
		}
		if err != nil {
			return State{}, fmt.Errorf("observe links in the namespace of %s: %w", guest, err)
		}
	}
	return state, nil
}

// observeInside tells the veths of a guest of their ends in its namespace. It asks for these ends alone: root in the guest may have made any
// number of links there.
func (k *Kernel) observeInside(links map[string]Link, guest policy.GuestName, veths []string) error {
	h, err := openSocket(k.path(string(guest)))
	if err != nil {
		return err
	}
	defer h.Socket.Close()
	for _, name := range veths {
		messages, err := request(h, unix.RTM_GETLINK, 0, header(links[name].link))
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
			continue // EINVAL: the other end is gone, and its index 0
		}
		if err != nil {
			return err
		}
		inside, err := decodeLinks(messages)
		if err != nil {
			return err
		}
		links[name] = join(links[name], guest, inside)
	}
	return nil
}

func (k *Kernel) observeNamespaces() (map[policy.GuestName]Namespaced, error) {
	out := map[policy.GuestName]Namespaced{}
	entries, err := os.ReadDir(k.folder)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var st unix.Statfs_t
		if err := unix.Statfs(k.path(e.Name()), &st); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at namespace %s: %w", e.Name(), err)
		}
		out[policy.GuestName(e.Name())] = Namespaced{Ready: st.Type == nsfsMagic}
	}
	return out, nil
}

// observeNetfilter returns the settings of br_netfilter that are on. They hold for every bridge of the network namespace: a bridge's own
// setting can only add to them (net/bridge/br_netfilter_hooks.c).
func (k *Kernel) observeNetfilter() ([]string, error) {
	var on []string
	err := k.inThread(func() error {
		for _, family := range []string{"arptables", "ip6tables", "iptables"} {
			name := "bridge-nf-call-" + family
			b, err := os.ReadFile(filepath.Join("/proc/sys/net/bridge", name))
			if errors.Is(err, fs.ErrNotExist) {
				continue // br_netfilter is not loaded
			}
			if err != nil {
				return err
			}
			if strings.TrimSpace(string(b)) != "0" {
				on = append(on, "net.bridge."+name)
			}
		}
		return nil
	})
	return on, err
}
