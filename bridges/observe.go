package bridges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

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
	state := State{Links: named(links), Namespaces: guests}
	for guest, ns := range guests {
		if !ns.Ready {
			continue
		}
		inside, err := k.dumpInside(ctx, guest)
		if errors.Is(err, fs.ErrNotExist) {
			delete(guests, guest)
			continue
		}
		if err != nil {
			return State{}, fmt.Errorf("observe links in the namespace of %s: %w", guest, err)
		}
		join(state.Links, guest, inside)
	}
	return state, nil
}

func (k *Kernel) dumpInside(ctx context.Context, guest policy.GuestName) ([]Link, error) {
	h, err := openSocket(k.path(string(guest)))
	if err != nil {
		return nil, err
	}
	defer h.Socket.Close()
	return dump(ctx, h)
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
