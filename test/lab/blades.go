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

// ownFolders is what each of several blades has for itself. The rest of the file system is the machine's, as on real blades
// that were installed alike.
var ownFolders = []string{
	"/etc/bladenet", "/run/bladenet", "/var/lib/bladenet", "/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt",
	"/var/lib/lxc", "/run/lxc", "/var/log",
}

// spaceScript makes a network, mount and UTS namespace of a name, which shows its own links in /sys and its name in a prompt.
// Mounts of the machine reach it. more runs in it; it has no apostrophes.
func spaceScript(name, more string) string {
	const script = `touch %[1]s.mnt %[1]s.uts /run/netns/%[2]s
unshare --mount=%[1]s.mnt --uts=%[1]s.uts --net=/run/netns/%[2]s --propagation slave /bin/sh -euc '
hostname %[2]s
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
%[3]s'
`
	return fmt.Sprintf(script, guest.Spaces+"/"+name, name, more)
}

// bladeScript makes one of several blades.
func bladeScript(name string) string {
	own := guest.Blades + "/" + name
	var before, inside strings.Builder
	for _, folder := range ownFolders {
		fmt.Fprintf(&before, "mkdir -p %s %s%s\n", folder, own, folder)
		fmt.Fprintf(&inside, "mount --bind %s%s %s\n", own, folder, folder)
	}
	fmt.Fprintf(&before, "cp -a /etc/libvirt/. %s/etc/libvirt/\ncp -a /var/lib/libvirt/. %s/var/lib/libvirt/\n", own, own)
	return before.String() + spaceScript(name, inside.String())
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
