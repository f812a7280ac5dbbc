//go:build kernel

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/hostagent"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/nft"
)

// The blade of these tests: its network namespace, and the only image it has.
const (
	space     = "bladed-test"
	spacePath = "/run/netns/" + space
	imageID   = "web-0123456789ab"
)

// newBlade makes a blade with a trunk, the demo's fleet without guests and one tiny image, and returns the folder that holds all of it.
func newBlade(t *testing.T) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "bladed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	files, err := policy.ReadDir("../../test/fleets/one-blade")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "policy"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, "policy", filepath.Base(f.Name)), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tinyImage(t, filepath.Join(dir, "images"))
	_ = exec.Command("ip", "netns", "del", space).Run() // of a test that was killed
	ip(t, "netns", "add", space)
	t.Cleanup(func() { ip(t, "netns", "del", space) })
	ip(t, "-n", space, "link", "add", "eno1", "type", "veth", "peer", "name", "wire")
	ip(t, "-n", space, "link", "set", "eno1", "up")
	ip(t, "-n", space, "link", "set", "wire", "up")
	return dir
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// tinyImage makes a store of one image, which holds one static program.
func tinyImage(t *testing.T, store string) { tinyBuild(t, store, imageID, time.Time{}) }

// tinyBuild adds a build of that image.
func tinyBuild(t *testing.T, store, id string, made time.Time) {
	t.Helper()
	dir := filepath.Join(store, id)
	for _, sub := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	about, err := json.Marshal(image.Image{
		ID: id, Created: made, Name: "web", Kind: policy.DriverLXC, Command: []string{"/bin/busybox", "sleep", "1000000"}, Halt: "SIGKILL",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), program, 0o755),
		os.WriteFile(filepath.Join(dir, "image.json"), about, 0o644),
	); err != nil {
		t.Fatal(err)
	}
}

// agentOf is the product's agent on that blade, and what ends its hold on the kernel. Change, which may be nil, changes what it works with.
func agentOf(dir string, change func(*hostagent.Config)) (*hostagent.Agent, func(), error) {
	kernel, err := nft.NewKernel(spacePath)
	if err != nil {
		return nil, nil, err
	}
	o := options{blade: "lame-l1", policy: filepath.Join(dir, "policy"), state: filepath.Join(dir, "state"), images: filepath.Join(dir, "images")}
	c := config(o, kernel, slog.New(slog.DiscardHandler), notifier{})
	c.Links = bridges.NewKernel(bridges.Options{Namespace: spacePath})
	delete(c.Drivers, policy.DriverKVM) // no director in these tests
	if change != nil {
		change(&c)
	}
	agent, err := hostagent.New(c)
	if err != nil {
		return nil, nil, errors.Join(err, kernel.Close())
	}
	return agent, func() { _ = kernel.Close() }, nil
}

// runs is an agent that keeps the blade until the test ends, at rest.
func runs(t *testing.T, dir string) *hostagent.Agent {
	t.Helper()
	agent, done, err := agentOf(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		done()
		agent, done, err := agentOf(dir, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer done()
		if err := agent.Dismantle(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := atRest(ctx, agent); err != nil {
		t.Fatal(err)
	}
	return agent
}

// atRest waits until the blade is as the policy folder says.
func atRest(ctx context.Context, agent *hostagent.Agent) error {
	const limit = 90 * time.Second
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		s, err := agent.Status(ctx)
		if err == nil && s.Converged && s.Pending == "" {
			return nil
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("not at rest after %s: %w, pending %q, waiting %v", limit, err, s.Pending, s.Waiting)
		}
	}
}

// server asks for a real server of the tiny image.
func server(name policy.GuestName) api.SpawnRequest {
	return api.SpawnRequest{Role: policy.RoleRealServer, Names: []policy.GuestName{name}, Services: []policy.ServiceName{"www"}, Image: "web"}
}

func silent(api.Event) {}

// initOf is the process that a container's group began with, 0 if it has none.
func initOf(name policy.GuestName) (pid int) {
	_ = filepath.WalkDir("/sys/fs/cgroup/bladenet/guest/"+string(name), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "cgroup.procs" && pid == 0 {
			text, _ := os.ReadFile(path)
			_, _ = fmt.Sscan(string(text), &pid)
		}
		return nil
	})
	return pid
}

// traces lists what the machine has of a guest: control groups, processes, mounts, links, rules, files of policy and state.
func traces(t *testing.T, dir string, name policy.GuestName) []string {
	t.Helper()
	var out []string
	for _, root := range []string{"/sys/fs/cgroup", dir, filepath.Dir(policy.NamespacePath(name)), "/run/lxc"} {
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil // what goes away meanwhile is none
			}
			unfinished := root == dir && (strings.HasPrefix(e.Name(), ".") || e.Name() == "change.json")
			if strings.Contains(e.Name(), string(name)) || unfinished {
				out = append(out, path)
			}
			return nil
		})
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), string(name)) {
			out = append(out, p+": "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := exec.Command("ip", "netns", "exec", space, "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, rules)
	}
	for _, text := range []string{string(mounts), ip(t, "-n", space, "-o", "link"), string(rules)} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, string(name)) {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return out
}

// noTrace fails when the machine has anything of a guest.
func noTrace(t *testing.T, dir string, name policy.GuestName, when string) {
	t.Helper()
	if left := traces(t, dir, name); len(left) > 0 {
		t.Errorf("%s: left behind:\n%s", when, strings.Join(left, "\n"))
	}
}
