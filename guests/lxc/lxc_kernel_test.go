//go:build kernel

package lxc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
)

// store is where the lab shows the images that were built outside; elsewhere BLADENET_IMAGES says it.
func store() image.Store {
	if dir := os.Getenv("BLADENET_IMAGES"); dir != "" {
		return image.Store{Dir: dir}
	}
	return image.Store{Dir: "/lab/images"}
}

// blade is a driver with a folder of its own.
func blade(t *testing.T) *Driver {
	t.Helper()
	return bladeIn(t, "/var/tmp")
}

// bladeIn is a driver with a folder of its own in a folder.
func bladeIn(t *testing.T, folder string) *Driver {
	t.Helper()
	base, err := os.MkdirTemp(folder, "lxc")
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Dir: base, Images: store(), Namespace: func(n policy.GuestName) string { return "/run/netns/" + string(n) }})
	t.Cleanup(func() {
		found, err := d.Observe(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, o := range found {
			if err := errors.Join(d.Stop(context.Background(), o.Name, 0), d.Destroy(context.Background(), o.Name)); err != nil {
				t.Error(err)
			}
		}
		if err := os.Remove(base); err != nil {
			t.Errorf("the driver's folder is not empty at the end: %v", err)
		}
	})
	return d
}

// namespace makes a named network namespace with the VIPs on lo and low ports for everybody in it, as the agent does before a start.
func namespace(t *testing.T, name string) {
	t.Helper()
	for _, args := range [][]string{
		{"netns", "add", name},
		{"-n", name, "link", "set", "lo", "up"},
		{"-n", name, "addr", "add", "192.0.2.10/32", "dev", "lo"},
		{"-n", name, "addr", "add", "2001:db8:5::10/128", "dev", "lo"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	if err := within(t, name, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	}); err != nil {
		t.Fatal(err)
	}
}

// wanted is a web guest of that name on the newest image.
func wanted(t *testing.T, name string) guests.Spec {
	t.Helper()
	id, err := store().Resolve("web", policy.DriverLXC)
	if err != nil {
		t.Fatal(err)
	}
	return guests.Define(policy.Guest{
		Name: policy.GuestName(name), Driver: policy.DriverLXC, Memory: 64 << 20, CPUs: 1, Inside: policy.Inside{Hostname: name},
	}, id)
}

// within runs f on a thread inside a network namespace.
func within(t *testing.T, name string, f func() error) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never given back: the thread ends with the goroutine
		h, err := netns.GetFromName(name)
		if err == nil {
			err = netns.Set(h)
			h.Close()
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// get asks a URL from inside a namespace.
func get(t *testing.T, name, network, address string) (string, error) {
	t.Helper()
	var body string
	err := within(t, name, func() error {
		conn, err := net.DialTimeout(network, address, 2*time.Second)
		if err != nil {
			return err
		}
		if strings.HasSuffix(address, ":443") {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		r, err := http.NewRequest(http.MethodGet, "http://vip/", nil)
		if err != nil {
			return err
		}
		r.Close = true
		if err := r.Write(conn); err != nil {
			return err
		}
		text, err := io.ReadAll(io.LimitReader(conn, 4096))
		body = string(text)
		if len(text) > 0 {
			return nil
		}
		return err
	})
	return body, err
}

// answered waits for the container's server.
func answered(t *testing.T, name, network, address string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		body, err := get(t, name, network, address)
		if err == nil && strings.Contains(body, name) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer on %s: %v, %q", name, address, err, body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func observed(t *testing.T, d *Driver, name string) guests.Observed {
	t.Helper()
	found, err := d.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range found {
		if string(o.Name) == name {
			return o
		}
	}
	return guests.Observed{}
}

func do(t *testing.T, what string, f func() error) {
	t.Helper()
	began := time.Now()
	if err := f(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%-8s %v", what, time.Since(began).Round(100*time.Microsecond))
}

// leftovers are cgroups of a guest, and processes that hold its name.
func leftovers(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(e.Name(), name) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if text, err := os.ReadFile(l); err == nil && strings.Contains(string(text), name) {
			out = append(out, l+": "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, name) && !strings.Contains(line, "/run/netns/") {
			out = append(out, line)
		}
	}
	return out
}

func TestLifeOfAContainer(t *testing.T) {
	ctx := context.Background()
	const name = "life-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)

	do(t, "create", func() error { return d.Create(ctx, spec) })
	if diff := cmp.Diff(guests.Observed{Spec: spec, Phase: guests.Stopped, Cloned: true, Defined: true}, observed(t, d, name)); diff != "" {
		t.Errorf("after create (-want +got):\n%s", diff)
	}
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	do(t, "answer", func() error { answered(t, name, "tcp4", "192.0.2.10:80"); return nil })
	answered(t, name, "tcp6", "[2001:db8:5::10]:80")
	answered(t, name, "tcp4", "192.0.2.10:443")
	answered(t, name, "tcp6", "[2001:db8:5::10]:443")

	o := observed(t, d, name)
	if o.Phase != guests.Running || o.PID == 0 || time.Since(o.Since) > time.Minute || time.Since(o.Since) < 0 || o.Stale {
		t.Errorf("after start: %+v", o)
	}
	if diff := cmp.Diff(spec, o.Spec); diff != "" {
		t.Errorf("definition read back (-want +got):\n%s", diff)
	}
	limits := map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "cpu.max": "100000 100000", "pids.max": "1024"}
	for file, want := range limits {
		got, err := os.ReadFile("/sys/fs/cgroup/bladenet/guest/" + name + "/" + file)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: got %q, %v; want %s", file, got, err, want)
		}
	}
	do(t, "start again", func() error { return d.Start(ctx, spec.Name) })
	if again := observed(t, d, name); again.PID != o.PID {
		t.Errorf("a second start changed init from %d to %d", o.PID, again.PID)
	}
	if err := d.Create(ctx, spec); err == nil {
		t.Error("create of a running container: no error")
	}
	if err := d.Destroy(ctx, spec.Name); err == nil {
		t.Error("destroy of a running container: no error")
	}

	do(t, "stop", func() error { return d.Stop(ctx, spec.Name, 10*time.Second) })
	do(t, "stop again", func() error { return d.Stop(ctx, spec.Name, 10*time.Second) })
	if o := observed(t, d, name); o.Phase != guests.Stopped || o.PID != 0 {
		t.Errorf("after stop: %+v", o)
	}
	// The namespace is the agent's: addresses in it outlive the container, and the next start finds them.
	do(t, "restart", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
	do(t, "kill", func() error { return d.Stop(ctx, spec.Name, 0) })
	do(t, "destroy", func() error { return d.Destroy(ctx, spec.Name) })
	do(t, "destroy again", func() error { return d.Destroy(ctx, spec.Name) })
	if o := observed(t, d, name); o.Phase != "" {
		t.Errorf("after destroy: %+v", o)
	}
	if left := leftovers(t, name); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// A container of ours must not be able to change the network it was given, nor gain rights by new programs or namespaces.
func TestContainerIsConfined(t *testing.T) {
	ctx := context.Background()
	const name = "confined-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	answered(t, name, "tcp4", "192.0.2.10:80")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", observed(t, d, name).PID))
	if err != nil {
		t.Fatal(err)
	}
	var bounding uint64
	lines := map[string]string{}
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(line, ":")
		lines[k] = strings.TrimSpace(v)
	}
	if _, err := fmt.Sscanf(lines["CapBnd"], "%x", &bounding); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		bit  uint
	}{
		{"net_admin", unix.CAP_NET_ADMIN},
		{"net_raw", unix.CAP_NET_RAW},
		{"sys_admin", unix.CAP_SYS_ADMIN},
		{"sys_module", unix.CAP_SYS_MODULE},
		{"sys_ptrace", unix.CAP_SYS_PTRACE},
		{"mknod", unix.CAP_MKNOD},
		{"bpf", unix.CAP_BPF},
	} {
		if bounding&(1<<c.bit) != 0 {
			t.Errorf("the container can gain %s", c.name)
		}
	}
	if bounding&(1<<unix.CAP_NET_BIND_SERVICE) == 0 {
		t.Error("the container lost net_bind_service: the check above looks at the wrong bits")
	}
	if lines["NoNewPrivs"] != "1" || lines["Seccomp"] != "2" {
		t.Errorf("NoNewPrivs %s, Seccomp %s; want 1 and 2", lines["NoNewPrivs"], lines["Seccomp"])
	}
	// Without AppArmor the file cannot be read, and there is nothing to have.
	label, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", observed(t, d, name).PID))
	if want := loadedProfile(profiles); err == nil && !strings.HasPrefix(string(label), want) || err != nil && want != unconfined {
		t.Errorf("AppArmor profile %q, %v; want %s", label, err, want)
	}
}

// The monitor must not hold a descriptor, session or cgroup of the agent, or the agent's end would be the guest's.
func TestMonitorIsNobodysChild(t *testing.T) {
	ctx := context.Background()
	const name = "monitor-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	leak, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // inheritable, as a careless library leaves one
		t.Fatal(err)
	}
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	pid := observed(t, d, name).PID
	monitor := parent(t, pid)
	if got := parent(t, monitor); got != 1 {
		t.Errorf("the monitor's parent is %d, want 1", got)
	}
	if mine, its := session(t, os.Getpid()), session(t, monitor); mine == its {
		t.Errorf("the monitor shares our session %d", mine)
	}
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", monitor))
	if err != nil || !strings.Contains(string(group), "bladenet/monitor/"+name) {
		t.Errorf("the monitor's cgroup: %s, %v", group, err)
	}
	for _, p := range []int{monitor, pid} {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p))
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.Contains(to, "hostname") {
				t.Errorf("process %d holds our %s", p, to)
			}
		}
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil || strings.TrimSpace(string(score)) != "0" {
		t.Errorf("oom score %s, %v", score, err)
	}
}

func parent(t *testing.T, pid int) (ppid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)[strings.LastIndexByte(string(text), ')')+2:]
	var state string
	if _, err := fmt.Sscan(rest, &state, &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

func session(t *testing.T, pid int) int {
	t.Helper()
	sid, err := unix.Getsid(pid)
	if err != nil {
		t.Fatal(err)
	}
	return sid
}

func TestEndOfInitWakes(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const name = "wake-rs1"
	d := blade(t)
	namespace(t, name)
	spec := wanted(t, name)
	woken := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- d.Events(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	<-woken // the watch is there
	do(t, "create", func() error { return d.Create(ctx, spec) })
	waitWake(t, woken, "creation of a folder")
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	pid := observed(t, d, name).PID
	time.Sleep(100 * time.Millisecond)
	for len(woken) > 0 {
		<-woken
	}
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitWake(t, woken, "death of init")
	t.Logf("woken %v after the kill", time.Since(began))
	deadline := time.Now().Add(10 * time.Second)
	for observed(t, d, name).Phase != guests.Stopped {
		if time.Now().After(deadline) {
			t.Fatal("a container without init does not count as stopped")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("stopped  %v after the kill", time.Since(began))
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("events: %v", err)
	}
}

func waitWake(t *testing.T, woken <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not wake", what)
	}
}

func BenchmarkObserve200(b *testing.B) {
	d := New(Options{Dir: b.TempDir(), Images: store(), Namespace: func(policy.GuestName) string { return "/nowhere" }})
	id, err := store().Resolve("web", policy.DriverLXC)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 200 {
		s := guests.Define(policy.Guest{Name: policy.GuestName(fmt.Sprintf("g%03d", i)), Driver: policy.DriverLXC, Memory: 64 << 20, CPUs: 1}, id)
		if err := d.Create(context.Background(), s); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if found, err := d.Observe(context.Background()); err != nil || len(found) != 200 {
			b.Fatal(len(found), err)
		}
	}
}
