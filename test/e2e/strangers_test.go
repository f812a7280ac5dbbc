//go:build kernel

package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Where what is not ours lies: lxc's own path, and a folder of disks.
const (
	strangersPath  = "/var/lib/lxc"
	strangersDisks = "/var/lib/strangers"
)

// What libvirt has of others: a domain on an overlay, and a network.
var strangersXML = map[string]string{
	"define": `<domain type='kvm'><name>stranger</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='` + strangersDisks + `/disk.qcow2'/><target dev='vda' bus='virtio'/></disk></devices></domain>`,
	"net-define": `<network><name>stranger</name><bridge name='virbr77'/></network>`,
}

// strangers puts onto the blade what others may have there before us: a container of lxc's own that runs and a clone of it over an overlay, a
// domain of libvirt's that runs on an overlay, a network and a bridge. It returns a description of all of it as it is at the time.
func strangers(t *testing.T) (look func() string) {
	t.Helper()
	away := func(command string) {
		t.Cleanup(func() {
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", command, err, out)
			}
		})
	}
	run(t, "sh", "-c", `set -e
d=`+strangersPath+`/stranger; mkdir -p $d/rootfs/bin $d/rootfs/dev $d/rootfs/proc $d/rootfs/sys; cp /bin/busybox $d/rootfs/bin/
printf 'lxc.uts.name = stranger\nlxc.rootfs.path = dir:%s\nlxc.init.cmd = /bin/busybox sleep 1000000\nlxc.net.0.type = empty\nlxc.apparmor.profile = unconfined\n' $d/rootfs > $d/config
lxc-copy -n stranger -N stranger-clone -s -B overlay`)
	away("lxc-destroy -n stranger-clone && lxc-destroy -n stranger")
	run(t, "lxc-start", "-n", "stranger")
	away("lxc-stop -k -n stranger")
	run(t, "sh", "-c", "set -e; mkdir -p "+strangersDisks+"; cd "+strangersDisks+"; truncate -s 1M base.raw; qemu-img create -q -f qcow2 -b base.raw -F raw disk.qcow2")
	away("rm -r " + strangersDisks)
	for verb, xml := range strangersXML {
		file := filepath.Join(t.TempDir(), verb)
		if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "virsh", "-q", verb, file)
		away("virsh -q " + strings.Replace(verb, "define", "undefine", 1) + " stranger")
	}
	run(t, "virsh", "-q", "start", "stranger")
	away("virsh -q destroy stranger")
	run(t, "ip", "link", "add", "br-stranger", "type", "bridge")
	away("ip link del br-stranger")
	run(t, "ip", "link", "add", "port-stranger", "master", "br-stranger", "type", "veth", "peer", "name", "peer-stranger")
	away("ip link del port-stranger")
	return func() string {
		t.Helper()
		var b strings.Builder
		for _, command := range []string{
			"lxc-info -n stranger -s -p", "lxc-info -n stranger-clone -s", "cat /sys/fs/cgroup/lxc.payload.stranger/cgroup.procs",
			"virsh dumpxml --inactive stranger", "virsh domstate stranger", "cat /run/libvirt/qemu/stranger.pid", "virsh net-dumpxml stranger", "virsh net-list --all",
			"ip -o link show br-stranger", "ip -o link show port-stranger", "ip -o link show peer-stranger",
		} {
			fmt.Fprintf(&b, "$ %s\n%s", command, run(t, strings.Fields(command)...))
		}
		for _, root := range []string{strangersPath, strangersDisks} {
			describe(t, &b, root)
		}
		return b.String()
	}
}

// describe lists a tree with owners, modes, times and digests.
func describe(t *testing.T, b *strings.Builder, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(b, "%s %s %d:%d %s", path, info.Mode(), st.Uid, st.Gid, info.ModTime().UTC())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(b, " %x", sha256.Sum256(text))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
