//go:build kernel

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/service"
	"github.com/bladenet/bladenet/policy"
)

// witness writes what it finds when it starts, and how it ends.
const witness = `#!/bin/sh
trap 'echo halt; exit 0' QUIT
exec >> "$1"
echo "start $(ip -o addr show dev lo | grep -c 203.0.113.10/32)"
while :; do sleep 0.05; done
`

// TestKernelService runs init with a service: it starts when the network is as the blade wants it and not before, outlives the worker, is
// started again when it dies, and ends by its own signal.
func TestKernelService(t *testing.T) {
	dir := t.TempDir()
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	file(t, filepath.Join(dir, "witness"), witness, 0o755)
	text, err := service.Encode(service.Spec{Command: []string{filepath.Join(dir, "witness"), log}, Halt: "SIGQUIT"})
	if err != nil {
		t.Fatal(err)
	}
	file(t, filepath.Join(dir, "service.conf"), string(text), 0o644)
	cmd := exec.Command("unshare", "-pfmn", "--mount-proc", "--kill-child", os.Args[0], "--state", filepath.Join(dir, "state.json"),
		"--listen", "unix:"+socket, "--run", dir, "--service", filepath.Join(dir, "service.conf"))
	cmd.Env = append(os.Environ(), "BLADEGUEST_TEST_PART=init")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })

	s := &site{t: t, dir: dir}
	status := func(a *channel.Apply) (channel.Status, error) { return askOnce(t.Context(), socket, a) }
	s.until(20*time.Second, "the worker answers", func() bool { st, err := status(nil); return err == nil && st.Server != nil })
	if st, err := status(&channel.Apply{Revision: "d", Role: policy.RoleDirector}); err != nil || !strings.Contains(st.Error, "not a director's") || st.Revision != "" {
		t.Errorf("a director's state: %+v, %v", st, err)
	}
	if said, err := os.ReadFile(log); err == nil {
		t.Errorf("the service ran before there was a state: %q", said)
	}
	want := channel.Apply{Revision: "one", Guest: "www-1", Role: policy.RoleRealServer}
	want.Inside.VIPs = []policy.VIP{{Address: netip.MustParseAddr("203.0.113.10")}}
	if st, err := status(&want); err != nil || st.Error != "" || st.Revision != "one" {
		t.Fatalf("apply: %+v, %v", st, err)
	}
	runs := func(restarts int) func() bool {
		return func() bool {
			st, err := status(nil)
			return err == nil && st.Server != nil && st.Server.Running && st.Server.Restarts == restarts
		}
	}
	s.until(20*time.Second, "the service runs", runs(0))
	logged(t, s, log, "start 1")

	first := childNamed(t, cmd.Process.Pid, "witness")
	if err := syscall.Kill(childNamed(t, cmd.Process.Pid, "--beat"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until(20*time.Second, "another worker answers", runs(0))
	if now := childNamed(t, cmd.Process.Pid, "witness"); now != first {
		t.Errorf("the service was process %d and is %d: it did not outlive the worker", first, now)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until(20*time.Second, "the service runs again", runs(1))
	if st, err := status(nil); err != nil || st.Server.Ended != "signal SIGKILL" {
		t.Errorf("how it ended: %+v, %v", st.Server, err)
	}
	logged(t, s, log, "start 1 start 1")

	if err := syscall.Kill(childrenOf(t, cmd.Process.Pid)[0], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("init does not end")
	}
	logged(t, s, log, "start 1 start 1 halt")
}

func file(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// logged waits until the service has written these words.
func logged(t *testing.T, s *site, log, words string) {
	t.Helper()
	var said []byte
	defer func() {
		if t.Failed() {
			t.Logf("the service wrote %q", said)
		}
	}()
	s.until(20*time.Second, fmt.Sprintf("the service has written %q", words), func() bool {
		said, _ = os.ReadFile(log)
		return strings.Join(strings.Fields(string(said)), " ") == words
	})
}

// askOnce hands a state over, or asks for the status, over a connection of its own.
func askOnce(ctx context.Context, socket string, a *channel.Apply) (channel.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return channel.Status{}, err
	}
	defer conn.Close()
	c, err := channel.NewClient(ctx, conn, "test")
	if err != nil {
		return channel.Status{}, err
	}
	if a != nil {
		return c.Apply(ctx, *a)
	}
	return c.Status(ctx, channel.Query{})
}

// childNamed is init's child with a word in its command line; init is the one child of unshare. 0: none.
func childNamed(t *testing.T, unshare int, word string) int {
	t.Helper()
	for _, init := range childrenOf(t, unshare) {
		for _, child := range childrenOf(t, init) {
			if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); err == nil && strings.Contains(string(line), word) {
				return child
			}
		}
	}
	return 0
}
