package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// maxSaid bounds what is kept of a script's output.
const maxSaid = 160

// tryScript runs the check's file with the server's address and port as arguments and in its environment. Exit status 0 is
// well; a check that sets weights takes 2 to 255 as well, for the weight that is two less, as keepalived's misc_dynamic does.
func tryScript(ctx context.Context, c policy.Check) (Answer, error) {
	err := Script(ctx, c.Path, []string{c.Address.String(), fmt.Sprint(c.Port)}, []string{
		"BLADENET_GUEST=" + string(c.Guest),
		"BLADENET_ADDRESS=" + c.Address.String(),
		fmt.Sprintf("BLADENET_PORT=%d", c.Port),
	})
	var exit *exec.ExitError
	if c.SetsWeight && errors.As(err, &exit) && exit.ExitCode() >= 2 {
		return Answer{Weighs: true, Weight: exit.ExitCode() - 2}, nil
	}
	return Answer{}, err
}

// Script runs a program to its end, or to that of ctx: then it and everything that it started are killed. The error is short and
// has the first line of what it said; an *exec.ExitError is in its chain when it ended by itself with another status than 0.
func Script(ctx context.Context, path string, args, env []string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	var said limitedBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A grandchild that left the process group could hold the output open.
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		line, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
		if line != "" {
			return fmt.Errorf("%w: %s", err, line)
		}
	}
	return err
}

// limitedBuffer keeps the beginning of what is written to it and takes the rest without complaint. The embedded buffer is not
// safe for two writers; exec uses one for both outputs when they are the same value.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxSaid-b.Len())])
	return len(p), nil
}
