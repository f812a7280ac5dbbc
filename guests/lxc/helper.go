package lxc

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	golxc "github.com/lxc/go-lxc"

	"github.com/bladenet/bladenet/policy"
)

// helperVerb is the hidden first argument by which a program starts itself again to start one container.
const helperVerb = "lxc-start"

// RunHelper does the short-lived half of Start and ends the process when args (os.Args[1:]) ask for it; otherwise it returns false at
// once. A program that uses this package calls it before anything else in main: liblxc forks the container's monitor off the
// calling process, and from a process of one purpose the monitor inherits no descriptors, signal handlers or timers of a daemon.
func RunHelper(args []string) bool {
	if len(args) != 3 || args[0] != helperVerb {
		return false
	}
	if err := startHere(args[1], args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func startHere(dir, name string) error {
	syscall.Umask(0o022)
	// The agent may be protected from the OOM killer; its guests must not be.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return fmt.Errorf("reset oom score: %w", err)
	}
	c, err := golxc.NewContainer(name, dir)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = c.Release() }()
	if err := c.WantDaemonize(true); err != nil {
		return fmt.Errorf("daemonize: %w", err)
	}
	if err := c.WantCloseAllFds(true); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return c.Start()
}

// spawn runs the helper for one container. The monitor that stays behind is in a session of its own and holds none of our descriptors.
func (d *Driver) spawn(ctx context.Context, name policy.GuestName) error {
	log, err := os.OpenFile(filepath.Join(d.dir(name), "lxc.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, d.helper[0], append(d.helper[1:len(d.helper):len(d.helper)], helperVerb, d.Dir, string(name))...)
	cmd.Args[0] = "bladed"
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
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

// firstError returns the first error of a liblxc log, without its time and place: later ones only follow from it.
func firstError(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), " ERROR "); ok {
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
