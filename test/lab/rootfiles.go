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

// rootFiles make libvirtd run by hand, without systemd, dbus and confinement, and give the machine an identity.
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

// rootAccounts are lines of account files. libvirtd asks for its default user before it reads that it runs guests as root.
var rootAccounts = []rootFile{
	{"etc/passwd", 0, "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n"},
	{"etc/group", 0, "libvirt-qemu:x:64055:\n"},
}

// addAccounts appends rootAccounts to the files that packages made.
func addAccounts(root string) error {
	for _, f := range rootAccounts {
		out, err := os.OpenFile(filepath.Join(root, f.name), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = out.WriteString(f.text)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	return nil
}

// writeRoot adds rootFiles and the mount points of the shares to a root file system.
func writeRoot(root string) error {
	if err := addAccounts(root); err != nil {
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
