package lab

import (
	"errors"
	"os"
	"path/filepath"
)

// rootFile is a file that an image has besides its packages.
type rootFile struct {
	name string // path without a leading slash
	mode os.FileMode
	text string
}

// rootFiles make libvirtd run without confinement, and by hand without systemd and dbus, and give the machine an identity.
var rootFiles = []rootFile{
	{"etc/libvirt/qemu.conf", 0o600, `user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
remember_owner = 0
namespaces = []
`},
	{"etc/libvirt/libvirtd.conf", 0o644, `unix_sock_group = "root"
auth_unix_rw = "none"
auth_unix_ro = "none"
`},
	{"etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"},
	{"etc/machine-id", 0o444, "b1ade0b1ade0b1ade0b1ade0b1ade000\n"},
	{"etc/fstab", 0o644, ""},
	{"etc/modprobe.d/bladenet-lab.conf", 0o644, "options dummy numdummies=0\n"},
}

// maskedUnits are what systemd, where it runs, does not start: the router and the store have places of their own, no container wants LXC's own
// bridge, and nobody logs in.
var maskedUnits = []string{
	"frr.service", "etcd.service", "ssh.service", "ssh.socket", "lxc-net.service", "getty@.service", "serial-getty@.service", "getty-static.service",
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "logrotate.timer",
	"systemd-timesyncd.service", "systemd-pstore.service",
}

func maskUnits(root string) error {
	var errs []error
	for _, unit := range maskedUnits {
		path := filepath.Join(root, "etc/systemd/system", unit)
		_ = os.Remove(path) // a unit may have an alias there
		errs = append(errs, os.Symlink("/dev/null", path))
	}
	return errors.Join(errs...)
}

// writeRoot adds rootFiles to a root file system, masks units and makes the mount points of the shares.
func writeRoot(root string) error {
	if err := maskUnits(root); err != nil {
		return err
	}
	for _, f := range rootFiles {
		path := filepath.Join(root, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	for _, dir := range []string{"lab/src", "lab/images", "var/lib/lxc", "var/cache/libvirt", "etc/bladenet"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	// A default network would make libvirtd start a bridge and a name server.
	autostart, err := filepath.Glob(filepath.Join(root, "etc/libvirt/qemu/networks/autostart/*"))
	if err != nil {
		return err
	}
	for _, path := range autostart {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
