//go:build kernel

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deb is the package that `make package` built last.
func deb(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob("../build/packages/" + name + "_*.deb")
	if err != nil || len(found) == 0 {
		t.Fatalf("no package %s: make package (%v)", name, err)
	}
	newest := found[0]
	for _, f := range found[1:] {
		a, errA := os.Stat(f)
		b, errB := os.Stat(newest)
		if errA == nil && errB == nil && a.ModTime().After(b.ModTime()) {
			newest = f
		}
	}
	return newest
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput() // also when the test has ended
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// daemon is bladed as its unit starts it, with a socket to hear what it tells systemd.
type daemon struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	d := &daemon{}
	// As the unit has it: no new privileges, and a watchdog.
	d.cmd = exec.Command("setpriv", "--no-new-privs", "/usr/sbin/bladed", "--blade", "lame-l1", "--images", "/lab/images")
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=180000000")
	d.cmd.Stderr = &d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.end()
		if t.Failed() {
			t.Logf("bladed said:\n%s", d.log.String())
		}
	})
	buf := make([]byte, 200)
	_ = heard.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		n, err := heard.Read(buf)
		if err != nil {
			t.Fatalf("bladed does not say that it is ready: %v", err)
		}
		if string(buf[:n]) == "READY=1" {
			return d
		}
	}
}

func (d *daemon) end() {
	if d.cmd.ProcessState == nil {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		_ = d.cmd.Wait()
	}
}

// ours lists what the blade has of bladenet: links, tables, namespaces, running containers.
func ours(t *testing.T) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(run(t, "ip", "-o", "link")) {
		if strings.Contains(line, "bladenet ") { // its alias
			name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
			out = append(out, strings.TrimSuffix(name, ":"))
		}
	}
	for line := range strings.Lines(run(t, "nft", "list", "tables")) {
		if strings.Contains(line, "bladenet") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{"/run/bladenet/netns/*", "/sys/fs/cgroup/bladenet/guest/*/cgroup.procs"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return strings.Join(out, "\n")
}

// TestPackagesComeAndGo installs, upgrades, removes and purges on a blade with a running guest.
func TestPackagesComeAndGo(t *testing.T) {
	const dpkg, policyFolder = "dpkg", "/etc/bladenet"
	kept := filepath.Join(t.TempDir(), "policy") // the lab has its own policy there
	run(t, "cp", "-aT", policyFolder, kept)
	t.Cleanup(func() { run(t, "cp", "-aT", kept, policyFolder) })

	run(t, dpkg, "-i", deb(t, "bladenet-guest"), deb(t, "bladenet"))
	run(t, "systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/bladed.service")
	run(t, "bash", "-n", "/usr/share/bash-completion/completions/bladectl")
	tree := t.TempDir() // a small machine may be told to leave documentation out
	run(t, "dpkg-deb", "-x", deb(t, "bladenet"), tree)
	for _, page := range []string{"bladed", "bladectl"} {
		if text := run(t, "gzip", "-dc", tree+"/usr/share/man/man8/"+page+".8.gz"); !strings.HasPrefix(text, ".TH "+strings.ToUpper(page)) {
			t.Errorf("the page of %s begins %.40q", page, text)
		}
	}
	run(t, "getent", "group", "bladenet")
	run(t, "/usr/bin/bladectl", "check")

	d := startDaemon(t)
	run(t, "/usr/bin/bladectl", "spawn", "realserver", "www-1", "--service", "www", "--image", "web")
	before := ours(t)
	for _, want := range []string{"br120", "www-1.0", "table bridge bladenet", "/run/bladenet/netns/www-1", "/sys/fs/cgroup/bladenet/guest/www-1/cgroup.procs"} {
		if !strings.Contains(before, want) {
			t.Errorf("the blade has no %s:\n%s", want, before)
		}
	}

	run(t, dpkg, "-i", deb(t, "bladenet")) // an upgrade, with the old daemon still running
	if now := ours(t); now != before {
		t.Errorf("an upgrade changed the blade:\n%s\nbefore:\n%s", now, before)
	}
	d.end()
	d = startDaemon(t)
	if now := ours(t); now != before {
		t.Errorf("a restart changed the blade:\n%s\nbefore:\n%s", now, before)
	}

	d.end()
	out := run(t, dpkg, "-r", "bladenet")
	if !strings.Contains(out, "stay as they are") {
		t.Errorf("remove does not say what it leaves:\n%s", out)
	}
	if now := ours(t); now != before {
		t.Errorf("remove changed the blade:\n%s\nbefore:\n%s", now, before)
	}
	if _, err := os.Stat("/usr/sbin/bladed"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bladed is still there: %v", err)
	}

	run(t, dpkg, "-P", "bladenet", "bladenet-guest")
	if now := ours(t); now != "" {
		t.Errorf("purge left:\n%s", now)
	}
	for _, path := range []string{"/var/lib/bladenet", "/run/bladenet", policyFolder, "/etc/default/bladed"} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			left, _ := filepath.Glob(path + "/*")
			t.Errorf("purge left %s: %v %v", path, left, err)
		}
	}
	if out, err := exec.Command("getent", "group", "bladenet").Output(); err == nil {
		t.Errorf("purge left the group %s", out)
	}
}
