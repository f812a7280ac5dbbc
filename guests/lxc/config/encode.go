package config

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
)

// layout counts changes of the template below that a running container needs a restart for.
const layout = 2

// Container is everything that one configuration file is made of.
type Container struct {
	guests.Spec
	Dir       string      // the container's folder
	Image     image.Image // what the clone stands on
	Namespace string      // path of the network namespace that it joins
	AppArmor  string      // profile, or unconfined
	VolumesAt string      // folder of its volumes
	FirstID   uint32      // the host's id of its root; 0 if it is privileged
}

// IDs is how many users and groups a container has.
const IDs = 65536

// RootPoint is where the monitor of a container with ids of its own sees the container's root. Each monitor has a mount namespace of its
// own, so one empty folder does for all. It is none of the container's: its root must be able to pass through.
const RootPoint = "/run/bladenet/root"

// VolumesPoint is where such a monitor sees the container's volumes, with the container's ids.
const VolumesPoint = "/run/bladenet/volumes"

// overlayKey is a comment to liblxc, to which image and delta of such a container are not known.
const overlayKey = "# overlay"

// What liblxc has no key for is a comment to it.
const (
	ioWeightKey = "# io-weight"
	diskKey     = "# disk"
)

// kept are the capabilities of a container's processes: what servers need to change user, open low ports and own their files.
// Not among them: net_admin and net_raw (its network is the blade's to change), sys_admin, sys_module, sys_ptrace, mknod.
var kept = []string{
	"chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "setgid", "setpcap", "setuid", "sys_chroot",
}

// Encode writes the configuration file of a container, as lxc.container.conf(5) describes it. Its first line carries the layout and a
// digest of the rest, by which Decode knows a file that somebody edited. The
// command is not in it: liblxc splits one at every blank, so Start hands it over as arguments.
func Encode(c Container) []byte {
	var b strings.Builder
	set := func(key string, value any) { fmt.Fprintf(&b, "lxc.%s = %v\n", key, value) }
	set("uts.name", c.Hostname)
	overlay, mounts := c.Image.Rootfs()+":"+filepath.Join(c.Dir, "delta"), "proc:mixed sys:ro"
	if c.Privileged {
		set("rootfs.path", "overlay:"+overlay)
	} else {
		fmt.Fprintf(&b, "%s = %s\n", overlayKey, overlay)
		set("rootfs.path", "dir:"+RootPoint)
		set("idmap", fmt.Sprintf("u 0 %d %d", c.FirstID, IDs))
		set("idmap", fmt.Sprintf("g 0 %d %d", c.FirstID, IDs))
		mounts = "proc:mixed" // /sys is for who owns the network namespace, and a server needs nothing of it
	}
	set("namespace.share.net", c.Namespace)
	halt := c.Image.Halt
	if halt == "" {
		halt = "SIGTERM"
	}
	set("signal.halt", halt)
	set("environment", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	set("autodev", 1)
	set("tty.max", 0)
	set("pty.max", 64)
	set("mount.auto", mounts)
	caps := slices.Concat(kept, c.Image.Capabilities)
	slices.Sort(caps)
	set("cap.keep", strings.Join(slices.Compact(caps), " "))
	set("no_new_privs", 1)
	set("apparmor.profile", c.AppArmor)
	set("seccomp.profile", filepath.Join(c.Dir, "seccomp"))
	set("cgroup.dir.monitor", "bladenet/monitor/"+string(c.Name))
	set("cgroup.dir.monitor.pivot", "bladenet/ended")
	set("cgroup.dir.container", "bladenet/guest/"+string(c.Name))
	if c.Memory > 0 {
		set("cgroup2.memory.max", c.Memory)
		set("cgroup2.memory.swap.max", 0)
	}
	if c.CPUs > 0 {
		set("cgroup2.cpu.max", fmt.Sprintf("%d 100000", c.CPUs*100000))
	}
	if c.PIDs > 0 {
		set("cgroup2.pids.max", c.PIDs)
	}
	if c.IOWeight > 0 {
		fmt.Fprintf(&b, "%s = %d\n", ioWeightKey, c.IOWeight)
	}
	if c.Disk > 0 {
		fmt.Fprintf(&b, "%s = %d\n", diskKey, c.Disk)
	}
	for _, v := range c.Volumes {
		set(volumeKey, encodeVolume(c, v))
	}
	set("console.logfile", filepath.Join(c.Dir, "console.log"))
	set("console.size", "1MB")
	set("log.file", filepath.Join(c.Dir, "lxc.log"))
	set("log.level", "WARN")
	return append([]byte(header(b.String())), b.String()...)
}

// Seccomp is the filter of system calls that no server in a container needs: mounts, new namespaces, kernel modules, keys, tracing, and
// io_uring, whose holes were many. The format is liblxc's own, version 2.
func Seccomp() []byte {
	calls := []string{
		"acct", "add_key", "bpf", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter",
		"io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "mount", "mount_setattr",
		"move_mount", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "process_vm_readv", "process_vm_writev", "quotactl",
		"request_key", "setns", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd",
	}
	const newUser = "[0,268435456,SCMP_CMP_MASKED_EQ,268435456]" // CLONE_NEWUSER of linux/sched.h
	return []byte("2\ndenylist\n[all]\n" + strings.Join(calls, " errno 1\n") + " errno 1\n" +
		// A filter cannot look at what clone3 is told; without it the C library takes clone.
		"clone errno 1 " + newUser + "\nclone3 errno 38\n")
}

func header(body string) string {
	sum := sha256.Sum256([]byte(body))
	return fmt.Sprintf("# bladenet %d %s: written whole, edits are found and undone\n", layout, hex.EncodeToString(sum[:8]))
}

// Decode reads back what of a definition a configuration file holds. Stale says that Encode of this version did not write the file as it is.
func Decode(text []byte) (s guests.Spec, stale bool, err error) {
	s.Driver, s.Privileged = policy.DriverLXC, true
	head, body, _ := bytes.Cut(text, []byte("\n"))
	stale = string(head)+"\n" != header(string(body))
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			continue
		}
		if err := decodeKey(&s, strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return guests.Spec{}, false, err
		}
	}
	if err := lines.Err(); err != nil {
		return guests.Spec{}, false, fmt.Errorf("read configuration: %w", err)
	}
	return s, stale, nil
}

func decodeKey(s *guests.Spec, key, value string) (err error) {
	switch key {
	case "lxc." + volumeKey:
		s.Volumes = append(s.Volumes, decodeVolume(value))
	case "lxc.uts.name":
		s.Hostname = value
	case "lxc.rootfs.path", overlayKey:
		if parts := strings.Split(strings.TrimPrefix(value, "overlay:"), ":"); len(parts) == 2 && parts[0] != "dir" {
			s.Image = filepath.Base(filepath.Dir(parts[0]))
			s.Name = policy.GuestName(filepath.Base(filepath.Dir(parts[1])))
		}
	case "lxc.idmap":
		s.Privileged = false
	case "lxc.cgroup2.memory.max":
		s.Memory, err = strconv.ParseInt(value, 10, 64)
	case "lxc.cgroup2.pids.max":
		s.PIDs, err = strconv.Atoi(value)
	case ioWeightKey:
		s.IOWeight, err = strconv.Atoi(value)
	case diskKey:
		s.Disk, err = strconv.ParseInt(value, 10, 64)
	case "lxc.cgroup2.cpu.max":
		quota, _, _ := strings.Cut(value, " ")
		s.CPUs, err = strconv.Atoi(quota)
		s.CPUs /= 100000
	}
	if err != nil {
		return fmt.Errorf("read configuration: %s: %w", key, err)
	}
	return nil
}
