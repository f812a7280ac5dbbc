package announce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/inside"
)

// The daemons must not outlive the process that decides what they announce. The kernel's own means, a death signal, is lost
// when a daemon gives up root, which FRR's do by themselves and two of them insist on. So a small process leads the group that
// they run in, holds the reading end of a pipe, and ends the whole group when the writing end is gone.

// Guard is the body of that process. It returns when the group has ended, and not at all when it would not. What VRRP's daemon leaves on eth0
// is taken away: the kernel would go on answering for it.
func Guard(stdin io.Reader) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	_, _ = io.Copy(io.Discard, stdin)
	_ = unix.Kill(0, unix.SIGTERM)
	_ = unix.Kill(0, unix.SIGCONT) // one that somebody stopped hears of it then
	ended := awaitGroup(unix.Getpgrp())
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = inside.DropFloating(ctx, "")
	if !ended {
		_ = unix.Kill(0, unix.SIGKILL)
	}
}

// awaitGroup waits a little for a process group to have no member but the caller, and says whether it has none.
func awaitGroup(group int) bool {
	for range int(stopTimeout / lookGroup) {
		if len(others(group)) == 0 {
			return true
		}
		time.Sleep(lookGroup)
	}
	return false
}

// lookGroup is how often the guard looks for what is left of its group.
const lookGroup = 50 * time.Millisecond

// others lists the processes of a group but for the caller; one that has ended and was not collected is none.
func others(group int) []int {
	return processes(func(pid int) bool {
		stat, err := readStat(pid)
		return err == nil && pid != os.Getpid() && stat.group == group && stat.state != 'Z'
	})
}

// guard is the guarding process as its supervisor sees it.
type guard struct {
	pid  int
	done chan struct{} // closed when it ended
	stop func()
}

// startGuard starts command, which must run Guard with its standard input.
func startGuard(ctx context.Context, command []string) (*guard, error) {
	if len(command) == 0 {
		return nil, errors.New("start guard: no command")
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	// Ending it goes by the pipe, which ends what is left of the group too.
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = 2 * stopTimeout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	g := &guard{pid: cmd.Process.Pid, done: make(chan struct{}), stop: func() { _ = cmd.Process.Kill() }}
	go func() {
		defer close(g.done)
		_ = cmd.Wait()
	}()
	return g, nil
}
