//go:build kernel

package lxc

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// TestExec runs commands in a container: what they print, how they end, where they are, and that they do not outlive who asked.
func TestExec(t *testing.T) {
	ctx := context.Background()
	const name = "exec-rs1"
	d := blade(t)
	d.Images = tiny(t, "/bin/busybox", "sleep", "300")
	namespace(t, name)
	s := guests.Define(policy.Guest{Name: name, Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1}, "web-0123456789ab")
	do(t, "create", func() error { return d.Create(ctx, s) })
	if _, _, err := execIn(ctx, t, d, name, nil, "/bin/busybox", "true"); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("exec in a stopped container: %v", err)
	}
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	sh := func(script string) []string { return []string{"/bin/busybox", "sh", "-c", script} }
	for _, c := range []struct {
		command []string
		status  int
		out     string
	}{
		{sh("echo to out; echo to err >&2; exit 7"), 7, "to out\nto err\n"},
		{sh(`echo "$PATH $TERM $container $HOME"; pwd`), 0, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin dumb lxc /root\n/\n"},
		{sh("kill -9 $$"), 128 + 9, ""},
		{sh("/bin/busybox cat"), 0, "what comes in\n"},
		{sh("/bin/busybox hostname; /bin/busybox ip -o addr show dev lo | /bin/busybox grep -c 192.0.2.10"), 0, name + "\n1\n"},
		{[]string{"/bin/nothing"}, 127, "/bin/nothing: No such file or directory\n"},
		{[]string{"/dev/null"}, 126, "/dev/null: Permission denied\n"},
	} {
		status, out, err := execIn(ctx, t, d, name, []string{"TERM=dumb"}, c.command...)
		if err != nil || status != c.status || out != c.out {
			t.Errorf("%q: status %d, %q, %v; want status %d, %q", c.command, status, out, err, c.status, c.out)
		}
	}

	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, _, err := execIn(short, t, d, name, nil, "/bin/busybox", "sleep", "271"); err == nil {
		t.Error("a command that was given up ended well")
	}
	if out, err := exec.Command("pgrep", "-f", "busybox sleep 271").Output(); err == nil {
		t.Errorf("what was given up still runs: %s", out)
	}
}

// execIn runs a command with "what comes in" as its input and both of its outputs in one.
func execIn(ctx context.Context, t *testing.T, d *Driver, name policy.GuestName, env []string, command ...string) (int, string, error) {
	t.Helper()
	in, give, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, print, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := give.WriteString("what comes in\n"); err != nil {
		t.Fatal(err)
	}
	give.Close()
	status, err := d.Exec(ctx, name, command, env, [3]*os.File{in, print, print})
	print.Close()
	text, readErr := io.ReadAll(out)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return status, string(text), err
}
