package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"time"
)

var virtualization = regexp.MustCompile(`(?m)^flags\s*:.*\b(svm|vmx)\b`)

// chooseAccel says how the machine's processor is made: $LAB_ACCEL, or kvm where it really works, or tcg. A processor without
// virtualization may still have a /dev/kvm that opens and then never runs an instruction, so a kernel has to print something.
func chooseAccel(ctx context.Context, image Image) (string, error) {
	switch accel := os.Getenv("LAB_ACCEL"); accel {
	case "tcg", "kvm":
		return accel, nil
	case "":
	default:
		return "", fmt.Errorf("choose accelerator: LAB_ACCEL is %q, want tcg or kvm", accel)
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !virtualization.Match(info) {
		return "tcg", nil
	}
	device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", nil
	}
	device.Close()
	if probeKVM(ctx, image) {
		return "kvm", nil
	}
	return "tcg", nil
}

// probeKVM boots the kernel without a root for five seconds at most and looks for its panic on the console.
func probeKVM(ctx context.Context, image Image) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-display", "none",
		"-no-reboot", "-serial", "stdio", "-kernel", image.Kernel(), "-append", "console=ttyS0 panic=-1").Output()
	return bytes.Contains(out, []byte("Linux version"))
}
