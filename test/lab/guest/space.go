package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kinds of a namespace beside or instead of the machine's own.
const (
	SpaceRouter = "router" // forwards
	SpaceClient = "client" // an ordinary host
	SpaceBlade  = "blade"  // has folders of its own
)

// ownFolders is what each of several blades has for itself. The rest of the file system is the machine's, as on real blades
// that were installed alike.
var ownFolders = []string{
	"/etc/bladenet", "/run/bladenet", "/var/lib/bladenet", "/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt",
	"/var/lib/lxc", "/run/lxc", "/var/log",
}

// furnished are the own folders that an image has something in for everybody.
var furnished = []string{"/etc/libvirt"}

// Space furnishes the network, mount and UTS namespaces that this process alone was started in: it shows their links in /sys,
// gives a blade its folders, and sets what a router or a host has.
func Space(kind, name string) error {
	steps := []func() error{func() error { return unix.Sethostname([]byte(name)) }, showOwnLinks, loopbackUp}
	switch kind {
	case SpaceRouter:
		steps = append(steps, func() error { return setHost(true) })
	case SpaceClient:
		steps = append(steps, func() error { return setHost(false) })
	case SpaceBlade:
		steps = append(steps, func() error { return ownFoldersOf(name) })
	default:
		return fmt.Errorf("furnish %s: %q is no kind of namespace", name, kind)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("furnish %s: %w", name, err)
		}
	}
	return nil
}

// showOwnLinks mounts /sys anew, since it shows the links of the network namespace it was mounted in.
func showOwnLinks() error {
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroups: %w", err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// setHost sets what a backbone router or a user's machine has: both see one-way traffic, and addresses are there at once.
func setHost(forwarding bool) error {
	settings := []string{
		"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0",
		"ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0", "ipv6/conf/all/accept_ra=0", "ipv6/conf/default/accept_ra=0",
	}
	if forwarding {
		settings = append(settings, "ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1")
	}
	var errs []error
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		errs = append(errs, os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644))
	}
	return errors.Join(errs...)
}

// ownFoldersOf binds a blade's folders over the machine's.
func ownFoldersOf(name string) error {
	own := filepath.Join(Blades, name)
	for _, folder := range ownFolders {
		if err := errors.Join(os.MkdirAll(folder, 0o755), os.MkdirAll(own+folder, 0o755)); err != nil {
			return err
		}
		if slices.Contains(furnished, folder) {
			if err := os.CopyFS(own+folder, os.DirFS(folder)); err != nil {
				return err
			}
		}
		if err := unix.Mount(own+folder, folder, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", folder, err)
		}
	}
	return nil
}
