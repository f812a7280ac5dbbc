package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/bladenet/bladenet/policy"
)

// consoleVerb is the hidden first argument by which a program starts itself again to couple a container's console with its files (console.c).
const consoleVerb = "lxc-console"

// Console couples the container's console with files until the container, the first file or ctx ends. One at a time has it.
func (d *Driver) Console(ctx context.Context, name policy.GuestName, files [3]*os.File) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	if !runs(have, name) {
		return fmt.Errorf("console of container %s: it does not run", name)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", consoleVerb, d.Dir, string(name))
	cmd.Args[0] = "bladed"
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdin, cmd.Stdout = files[0], files[1] // on standard error liblxc would tell of a key that is not ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // as in Exec
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return fmt.Errorf("console of container %s: somebody else has it, or its monitor refuses", name)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("console of container %s: %w", name, err)
	}
	return nil
}
