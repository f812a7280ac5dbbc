package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// attachVerb is the hidden first argument by which a program starts itself again to run a command in a container (attach.c).
const attachVerb = "lxc-attach"

// path is where a command is looked for in a container.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Exec runs a command as the container's root, in its namespaces, cgroup and confinement, with these files as its standard ones. It
// returns the exit status, 128 and the signal that ended it, or 125 when the container cannot be joined, after a line on standard
// error. When ctx ends the command is killed; what it has begun in sessions of their own is not.
func (d *Driver) Exec(ctx context.Context, name policy.GuestName, command, env []string, files [3]*os.File) (int, error) {
	have, err := d.Observe(ctx)
	if err != nil {
		return 0, err
	}
	if !runs(have, name) {
		return 0, fmt.Errorf("exec in container %s: it does not run", name)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{attachVerb, d.Dir, string(name)}, command...)...)
	cmd.Args[0] = "bladed"
	cmd.Dir = "/"
	cmd.Env = append([]string{path, "HOME=/root", "container=lxc"}, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	// The command ends with us, whatever ends us; a parent's death is that of the thread that forked, so it stays this one's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", name, err)
	}
	return 0, nil
}

// ConsoleLog is where liblxc writes the container's console.
func (d *Driver) ConsoleLog(name policy.GuestName) string {
	return filepath.Join(d.dir(name), "console.log")
}

func runs(have []guests.Observed, name policy.GuestName) bool {
	for _, o := range have {
		if o.Name == name {
			return o.Phase == guests.Running
		}
	}
	return false
}
