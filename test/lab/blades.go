package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/bladenet/bladenet/test/lab/guest"
)

// machine is the place of commands that make the blades, the router and the client.
const machine = "machine"

// spaceScript makes the network, mount and UTS namespaces of a blade, the router or the client, in the background of a shell.
// Mounts of the machine reach them.
func spaceScript(kind, name string) string {
	const script = `unshare --mount=%[1]s.mnt --uts=%[1]s.uts --net=/run/netns/%[2]s --propagation slave %[3]s space %[4]s %[2]s & pids="$pids $!"
`
	return fmt.Sprintf(script, guest.Spaces+"/"+name, name, guest.Binary, kind)
}

// spacesScript makes every namespace of a lab.
func (t topology) spacesScript() string {
	var names []string
	spaces := ""
	for _, s := range t.Sites {
		names = append(names, s.router(), s.client())
		spaces += spaceScript(guest.SpaceRouter, s.router()) + spaceScript(guest.SpaceClient, s.client())
	}
	if t.several() {
		for _, b := range t.Blades {
			names = append(names, b.Name)
			spaces += spaceScript(guest.SpaceBlade, b.Name)
		}
	}
	var files strings.Builder
	for _, name := range names {
		fmt.Fprintf(&files, " %[1]s/%[2]s.mnt %[1]s/%[2]s.uts /run/netns/%[2]s", guest.Spaces, name)
	}
	return "touch" + files.String() + "\npids=\n" + spaces + "for pid in $pids; do wait $pid; done\n"
}

// several says whether blades are namespaces of the machine; a single one is the machine itself.
func (t topology) several() bool { return len(t.Blades) > 1 }

// spaceOf is where ip(8) finds a blade's network namespace: by name, or as that of the first process.
func (t topology) spaceOf(i int) string {
	if t.several() {
		return t.Blades[i].Name
	}
	return "1"
}

// onBlades does something on every blade at once and returns the first error.
func (u *start) onBlades(ctx context.Context, do func(ctx context.Context, blade string) error) error {
	return together(ctx, len(u.topology.Blades), func(ctx context.Context, i int) error {
		name := u.topology.Blades[i].Name
		if err := do(ctx, name); err != nil {
			return fmt.Errorf("blade %s: %w", name, err)
		}
		return nil
	})
}

// together does n things at once. The first error ends the others' context and is what it returns.
func together(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			if err := do(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
