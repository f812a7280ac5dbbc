//go:build lab

package systemd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/test/lab"
)

// source is the repository, which the machine has at /lab/src.
const source = "../../.."

// machine is a lab with systemd.
type machine struct {
	*testing.T
	lab *lab.Lab
}

// up starts a lab of its own for a test.
func up(t *testing.T, name string) machine {
	t.Helper()
	binary, err := filepath.Abs(source + "/bin/lab")
	if err != nil {
		t.Fatal(err)
	}
	if name = fmt.Sprintf("%s-%d", name, os.Getpid()); os.Getenv("LAB_NAME") != "" {
		name = os.Getenv("LAB_NAME") + "-" + name
	}
	l, err := lab.Up(t.Context(), lab.Options{Name: name, Binary: binary, Systemd: true, Limit: 30 * time.Minute, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(name); err != nil {
			t.Error(err)
		}
	})
	m := machine{t, l}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.try("journalctl --no-pager -n 60 -u bladed; systemctl --no-pager --failed")
			t.Logf("the journal:\n%s", out)
		}
	})
	return m
}

// in is the same machine for a part of a test.
func (m machine) in(t *testing.T) machine { return machine{t, m.lab} }

// try runs a script of a shell on the blade and returns what it printed.
func (m machine) try(script string) (string, int) { return m.tryIn("machine", script) }

func (m machine) tryIn(place, script string) (string, int) {
	m.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // also when the test has ended
	defer cancel()
	var out bytes.Buffer
	status, err := m.lab.Exec(ctx, lab.Command{In: place, Args: []string{"/bin/bash", "-euc", script}, Stdout: &out, Stderr: &out})
	if err != nil {
		m.Fatalf("%s: %v\n%s", script, err, &out)
	}
	return out.String(), status
}

// sh runs a script that must end well.
func (m machine) sh(script string) string {
	m.Helper()
	out, status := m.try(script)
	if status != 0 {
		m.Fatalf("%s: status %d\n%s", script, status, out)
	}
	return out
}

// word is what a script prints, without the line's end.
func (m machine) word(script string) string {
	m.Helper()
	return strings.TrimSpace(m.sh(script))
}

// eventually runs a script until it prints what is wanted.
func (m machine) eventually(limit time.Duration, want, script string) {
	m.Helper()
	deadline := time.Now().Add(limit)
	for {
		out, _ := m.try(script)
		if strings.TrimSpace(out) == want {
			return
		}
		if time.Now().After(deadline) {
			m.Fatalf("%s: %q after %s, want %q", script, strings.TrimSpace(out), limit, want)
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// background runs a script in a place until stop, which returns what it printed.
func (m machine) background(place, script string) (stop func() string) {
	m.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	done := make(chan error, 1)
	in, end, err := os.Pipe()
	if err != nil {
		m.Fatal(err)
	}
	go func() {
		_, err := m.lab.Exec(ctx, lab.Command{In: place, Args: []string{"/bin/bash", "-uc", script}, Stdin: in, Stdout: &out, Stderr: &out})
		done <- err
	}()
	return func() string {
		m.Helper()
		end.Close() // what it reads ends
		select {
		case err := <-done:
			if err != nil {
				m.Fatalf("%s: %v\n%s", script, err, &out)
			}
		case <-time.After(2 * time.Minute):
			m.Errorf("%s: it does not end", script)
		}
		cancel()
		in.Close()
		return out.String()
	}
}

// deb is the package that `make package` built last, as the machine sees it.
func (m machine) deb(name string) string {
	m.Helper()
	found, err := filepath.Glob(source + "/build/packages/" + name + "_*.deb")
	if err != nil || len(found) == 0 {
		m.Fatalf("no package %s: make package (%v)", name, err)
	}
	newest := found[0]
	for _, f := range found[1:] {
		a, errA := os.Stat(f)
		b, errB := os.Stat(newest)
		if errA == nil && errB == nil && a.ModTime().After(b.ModTime()) {
			newest = f
		}
	}
	return "/lab/src/build/packages/" + filepath.Base(newest)
}

// next is the same package as a later version.
func (m machine) next(name string) string {
	m.Helper()
	const folder = "build/packages/next"
	build := exec.CommandContext(m.Context(), "go", "run", "./packaging", "--version", "9.9", "--out", folder)
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		m.Fatalf("build a later version: %v\n%s", err, out)
	}
	return fmt.Sprintf("/lab/src/%s/%s_9.9_amd64.deb", folder, name)
}

// ours lists what the blade has of bladenet: links, tables, namespaces, running containers.
func (m machine) ours() string {
	m.Helper()
	return m.sh(`ip -o link | sed -n 's/^[0-9]*: \([^@:]*\).*alias bladenet.*/\1/p'
nft list tables | grep bladenet || true
ls -d /run/bladenet/netns/* /sys/fs/cgroup/bladenet/guest/*/cgroup.procs 2>/dev/null || true`)
}
