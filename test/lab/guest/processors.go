package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// startProcessors lets all processors run, after what makes Linux patch its own code in busy places has been done with only one.
//
// A static key is patched in by a breakpoint that stands for moments. qemu before 8.1, which emulates each processor in a thread of its own,
// locks a page only after it has read the code on it, and may keep the breakpoint of a patch that another processor has just
// ended: who comes by it dies of it or loops for ever. So the keys that would turn while a blade is busy are turned once, here, and stay.
// `ftrace=function ftrace_filter=__jump_label_update trace_options=func_stack_trace` on the kernel's line shows who turns one.
func startProcessors() error {
	if err := turnKeys(); err != nil {
		return fmt.Errorf("turn static keys: %w", err)
	}
	files, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/online")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("start processor: %w", err)
		}
	}
	return nil
}

func turnKeys() error {
	return errors.Join(beginGuest(), fillCgroup(), hookEverything())
}

// Requests of include/uapi/linux/kvm.h.
const (
	kvmCreateVM      = 0xae01
	kvmCreateVCPU    = 0xae41
	kvmCreateIRQChip = 0xae60
)

// beginGuest makes a KVM guest with a processor that never runs, and never closes it: the first guest and the last one turn keys in every change
// of tasks, and a processor that has not set up its interrupts turns one in all guests.
func beginGuest() error {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", err)
	}
	vm, err := unix.IoctlRetInt(fd, kvmCreateVM)
	if err == nil {
		_, err = unix.IoctlRetInt(vm, kvmCreateIRQChip)
	}
	if err == nil {
		_, err = unix.IoctlRetInt(vm, kvmCreateVCPU)
	}
	if err != nil {
		fmt.Printf("lab: no KVM guest can be made: %v\n", err) // then nobody else makes one either
	}
	return nil
}

// fillCgroup makes a cgroup with a limit and no process. The first one below the root turns keys in every allocation of memory and in every
// packet that a socket takes, the first limit of processor time in every change of tasks.
func fillCgroup() error {
	const dir = "/sys/fs/cgroup/lab"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(dir+"/cpu.max", []byte("100000 100000"), 0o644)
}

// hookEverything puts an empty chain on each hook, in the agent's namespace, where no packet of a blade comes by: the first and the last chain of
// a hook, in any namespace, turn a key in every packet.
func hookEverything() error {
	var b strings.Builder
	for _, family := range []string{"bridge", "ip", "ip6"} {
		fmt.Fprintf(&b, "table %s lab {\n", family)
		for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
			fmt.Fprintf(&b, "chain %s { type filter hook %s priority 0; policy accept; }\n", hook, hook)
		}
		b.WriteString("}\n")
	}
	b.WriteString("table arp lab {\nchain input { type filter hook input priority 0; policy accept; }\nchain output { type filter hook output priority 0; policy accept; }\n}\n")
	c := exec.Command("/sbin/ip", "netns", "exec", control, "/usr/sbin/nft", "-f", "-")
	c.Stdin = strings.NewReader(b.String())
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("hook chains: %w: %s", err, out)
	}
	return nil
}
