//go:build kernel

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

// Where the lab has put things, and what the one-blade fleet says.
const (
	folder   = "/etc/bladenet"
	vip4     = "203.0.113.10"
	vip6     = "2001:db8:5::10"
	director = "dir-pub-l"
	trunk    = "eno1"
)

// blade is a running bladed on the lab's blade. The tests share it, in the order in which they stand in the files: an operator's day.
type blade struct {
	cmd *exec.Cmd
	log *bytes.Buffer
}

// begin starts bladed and ends it with the test, whatever becomes of it.
func begin(t *testing.T) *blade {
	t.Helper()
	b := &blade{}
	b.start(t)
	t.Cleanup(func() {
		b.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("bladed said:\n%s", lastLines(b.log.String(), 25))
		}
	})
	return b
}

func (b *blade) start(t *testing.T) {
	t.Helper()
	b.log = &bytes.Buffer{}
	b.cmd = exec.Command("bladed", "--blade", "lame-l1", "--policy", folder, "--images", "/lab/images", "--silence", "40s")
	b.cmd.Stderr = b.log
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "bladed answers", func() error {
		_, err := agent.Status(t.Context())
		return err
	})
}

// end sends a signal to bladed and waits for its end.
func (b *blade) end(signal os.Signal) {
	if b.cmd.ProcessState == nil {
		_ = b.cmd.Process.Signal(signal)
		_ = b.cmd.Wait()
	}
}

// ctl runs bladectl and returns what it printed; a test fails when the status is not 0.
func ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, status := try(t, args...)
	if status != 0 {
		t.Fatalf("bladectl %s: status %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

// try runs bladectl and returns what it printed, both streams, and its exit status.
func try(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "bladectl", args...).CombinedOutput()
	return string(out), exitStatus(t, err)
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

// run runs any program on the blade.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// agent asks the daemon without a program's start, which takes an emulated machine's time from the guests that a test waits for.
var agent = api.NewClient(api.DefaultSocket)

// status asks the daemon.
func status(t *testing.T) api.Status {
	t.Helper()
	s, err := agent.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// converged waits until nothing is left to do.
func converged(t *testing.T) {
	t.Helper()
	eventually(t, 90*time.Second, "the blade is as its policy says", func() error {
		answer, err := agent.Plan(t.Context(), api.PlanRequest{})
		if err == nil && len(answer.Steps) > 0 {
			err = fmt.Errorf("the plan is not empty: %+v", answer.Steps)
		}
		return err
	})
}

// eventually calls ok until it returns nil, half of the time at most; a test fails when that takes longer than limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		began := time.Now()
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		time.Sleep(max(100*time.Millisecond, time.Since(began)))
	}
}

// client runs a program in the client's namespace.
func client(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", "client"}, args...)...)
}

// ask sends n requests, each on a connection of its own, and counts the answers by who gave them. Each must have one.
func ask(t *testing.T, vip string, n int) map[string]int {
	t.Helper()
	count, err := tryAsking(t, vip, n)
	if err != nil {
		t.Errorf("ask %s: %v", vip, err)
	}
	return count
}

func tryAsking(t *testing.T, vip string, n int) (map[string]int, error) {
	t.Helper()
	var urls strings.Builder
	for i := range n {
		fmt.Fprintf(&urls, "url = \"http://%s/?%d\"\n", bracket(vip), i)
	}
	cmd := client(t.Context(), "curl", "-g", "-s", "-S", "-m", "20", "-H", "Connection: close", "-K", "-")
	cmd.Stdin = strings.NewReader(urls.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 { // curl's status is the last request's, its words are all of them
		err = fmt.Errorf("%w: %s", cmp.Or(err, errors.New("not every request was answered")), stderr.String())
	}
	count := map[string]int{}
	for line := range strings.Lines(string(out)) {
		count[strings.TrimSpace(line)]++
	}
	return count, err
}

// reachable waits until a user gets an answer: a VIP that was just announced takes its routing protocol's time.
func reachable(t *testing.T) {
	t.Helper()
	for _, vip := range []string{vip4, vip6} {
		eventually(t, time.Minute, "a user reaches "+vip, func() error {
			return client(t.Context(), "curl", "-g", "-s", "-m", "2", "-o", "/dev/null", "http://"+bracket(vip)+"/").Run()
		})
	}
}

func bracket(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

// write puts a file into the policy folder for the length of a test.
func write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
}

// traces lists the files and folders below roots whose name holds a word.
func traces(t *testing.T, word string, roots ...string) []string {
	t.Helper()
	var found []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && strings.Contains(d.Name(), word) {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// libvirtdPID is where the lab's libvirtd writes its process id.
const libvirtdPID = "/run/libvirt/libvirtd.pid"

func stopLibvirtd(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(libvirtdPID)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "libvirtd has ended", func() error {
		if err := syscall.Kill(pid, 0); err == nil {
			return fmt.Errorf("process %d is there", pid)
		}
		return nil
	})
}

func startLibvirtd(t *testing.T) {
	t.Helper()
	run(t, "libvirtd", "-d", "-p", libvirtdPID)
}
