package lxc

// #cgo pkg-config: lxc
import "C"

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// helperVerb is the hidden first argument by which a program starts itself again to start one container. What runs then is in start.c,
// and every program that links this package has it.
const helperVerb = "lxc-start"

// RunHelper is for the first line of main. In a helper's process start.c has done the work and ended it before main; where it could not, since
// only glibc hands arguments to what runs before main, RunHelper ends the process with an error, or a second daemon would start.
// It returns false for all other arguments (os.Args[1:]).
func RunHelper(args []string) bool {
	if len(args) == 0 || args[0] != helperVerb {
		return false
	}
	fmt.Fprintln(os.Stderr, "lxc-start: this program's C library gives constructors no arguments: build it with glibc")
	os.Exit(1)
	return true
}

// spawn runs the helper for one container, with what its root is made of and the argument vector of its init. The monitor that stays
// behind is in a session of its own and holds none of our descriptors.
func (d *Driver) spawn(ctx context.Context, name policy.GuestName, root, command []string) error {
	log, err := os.OpenFile(filepath.Join(d.dir(name), "lxc.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := slices.Concat([]string{helperVerb, d.Dir, string(name)}, root, command)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...) // this program, even after its file was replaced
	cmd.Args[0] = "bladed"
	cmd.Dir = "/"
	// Without a PATH liblxc writes maps of ids by itself. With one it runs newuidmap where that is installed, which wants ours in /etc/subuid.
	cmd.Env = []string{}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if why := firstError(log.Name()); why != "" {
			return fmt.Errorf("%s", why)
		}
		return err
	}
	return nil
}

// firstError returns the first error of a start's log, without its time and place: later ones only follow from it. A line that is not
// liblxc's is the helper's own.
func firstError(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "lxc") {
			return strings.TrimSpace(line)
		}
		if _, rest, ok := strings.Cut(line, " ERROR "); ok {
			if _, text, ok := strings.Cut(rest, " - "); ok {
				if _, message, ok := strings.Cut(text, " - "); ok {
					return message
				}
				return text
			}
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
