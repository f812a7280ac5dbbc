package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// kvm looks for what machines need; a blade without machines needs nothing of it.
func kvm(_ context.Context, h Host) []finding {
	if h.guests(policy.DriverKVM) == 0 {
		return nil
	}
	var out []finding
	for _, device := range []struct{ path, why, remedy string }{
		{"dev/kvm", "machines would be emulated, and far too slow", "switch virtualization on in the firmware; modprobe kvm_intel or kvm_amd"},
		{"dev/vhost-net", "machines' packets would pass through their emulator", "modprobe vhost_net"},
		{"dev/vhost-vsock", "the helpers in directors cannot be reached", "modprobe vhost_vsock"},
	} {
		f, err := os.OpenFile(h.path(device.path), os.O_RDWR, 0)
		switch {
		case errors.Is(err, fs.ErrPermission):
			out = append(out, doubtful("/"+device.path+" cannot be tried", "be root"))
		case err != nil:
			out = append(out, wrong(fmt.Sprintf("/%s cannot be opened: %s", device.path, device.why), device.remedy))
		default:
			f.Close()
		}
	}
	return out
}

// libvirtSocket is where libvirtd, or the newer virtqemud for it, listens.
const libvirtSocket = "run/libvirt/libvirt-sock"

func libvirt(_ context.Context, h Host) []finding {
	if h.guests(policy.DriverKVM) == 0 || h.Root != "" && h.exists(libvirtSocket) {
		return nil
	}
	c, err := net.DialTimeout("unix", h.path(libvirtSocket), time.Second)
	switch {
	case err == nil:
		c.Close()
		return nil
	case errors.Is(err, fs.ErrPermission):
		return []finding{doubtful("libvirtd cannot be asked", "be root or in group libvirt")}
	}
	return []finding{wrong("libvirtd does not answer: machines cannot be kept", "apt-get install libvirt-daemon-system; systemctl start libvirtd")}
}

func cgroups(_ context.Context, h Host) []finding {
	have := strings.Fields(h.read("sys/fs/cgroup/cgroup.controllers"))
	if len(have) == 0 {
		return []finding{wrong("there is no unified control group hierarchy at /sys/fs/cgroup: containers cannot be limited",
			"boot without systemd.unified_cgroup_hierarchy=0; mount -t cgroup2 cgroup2 /sys/fs/cgroup")}
	}
	var out []finding
	for _, need := range []string{"cpu", "memory", "pids"} {
		if !contains(have, need) {
			out = append(out, wrong(fmt.Sprintf("control group controller %s is not there", need), "boot with cgroup_enable="+need))
		}
	}
	return out
}

// userNamespaces looks whether containers can have ids of their own.
func userNamespaces(_ context.Context, h Host) []finding {
	const key = "proc/sys/user/max_user_namespaces"
	have, ok := h.number(key)
	if !ok {
		return []finding{wrong("the kernel has no user namespaces: containers can only be privileged", "boot a kernel with CONFIG_USER_NS=y")}
	}
	need := h.guests(policy.DriverLXC) + 1 // and one while a container starts
	if have >= need {
		return nil
	}
	f := wrong(fmt.Sprintf("user.max_user_namespaces is %d: containers need %d", have, need), lasting("user.max_user_namespaces", "16384"))
	f.fix = h.write(key, "16384")
	return []finding{f}
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// clock asks the kernel whether somebody keeps its time. Windows to confirm in, and logs of several blades, need it.
func clock(_ context.Context, h Host) []finding {
	if h.Root != "" {
		return nil
	}
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err != nil || state != timeError && t.Status&unix.STA_UNSYNC == 0 {
		return nil
	}
	return []finding{doubtful("nothing keeps the clock", "apt-get install chrony")}
}

// timeError is TIME_ERROR of adjtimex(2).
const timeError = 5

// Least room on a disk.
const (
	leastBytes = 1 << 30
	leastShare = 20 // one part in so many
)

// disk looks at the folders that the daemon writes to; revisions, clones and images lie there.
func disk(_ context.Context, h Host) []finding {
	var out []finding
	seen := map[unix.Fsid]bool{}
	for _, folder := range []string{h.State, h.Policy} {
		var s unix.Statfs_t
		if folder == "" || unix.Statfs(nearest(folder), &s) != nil || seen[s.Fsid] {
			continue
		}
		seen[s.Fsid] = true
		free, size := int64(s.Bavail)*s.Bsize, int64(s.Blocks)*s.Bsize
		if free < leastBytes || free < size/leastShare {
			out = append(out, doubtful(fmt.Sprintf("%s has %d MiB left of %d", folder, free>>20, size>>20), "make room: bladectl image list; journalctl --vacuum-size=200M"))
		}
		if s.Files > 0 && s.Ffree < s.Files/leastShare {
			out = append(out, doubtful(fmt.Sprintf("%s has %d of %d inodes left", folder, s.Ffree, s.Files), "remove small files, or make a larger file system"))
		}
	}
	return out
}

// nearest is the folder itself, or the first above it that is there.
func nearest(folder string) string {
	for {
		if _, err := os.Stat(folder); err == nil || folder == "/" || folder == "." {
			return folder
		}
		folder = filepath.Dir(folder)
	}
}

// agent hands on what the daemon cannot do.
func agent(_ context.Context, h Host) []finding {
	var out []finding
	for _, w := range h.Waiting {
		text := w.Step.Object + ": " + w.Step.Reason
		if w.Error != "" {
			text += ": " + w.Error
		}
		out = append(out, doubtful(text, "bladectl status, bladectl plan"))
	}
	return out
}
