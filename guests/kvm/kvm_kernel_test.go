//go:build kernel

package kvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirt"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/kvm/domain"
	"github.com/bladenet/bladenet/policy"
)

// store is where the lab shows the images that were built outside; elsewhere BLADENET_IMAGES says it.
func store() image.Store {
	if dir := os.Getenv("BLADENET_IMAGES"); dir != "" {
		return image.Store{Dir: dir}
	}
	return image.Store{Dir: "/lab/images"}
}

// blade is a driver with a folder of its own, on the machine's libvirtd.
func blade(t *testing.T) *Driver {
	t.Helper()
	base, err := os.MkdirTemp("/var/tmp", "kvm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	d := New(Options{Dir: base, Images: store()})
	t.Cleanup(func() {
		found, err := d.Observe(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, o := range found {
			if o.Phase == guests.Foreign {
				continue
			}
			if err := errors.Join(d.Stop(context.Background(), o.Name, 0), d.Destroy(context.Background(), o.Name)); err != nil {
				t.Error(err)
			}
		}
		d.Close()
		if err := os.Remove(base); err != nil {
			t.Errorf("the driver's folder is not empty at the end: %v", err)
		}
	})
	return d
}

// taps makes a persistent tap a port, as the agent does before a start.
func taps(t *testing.T, s guests.Spec) {
	t.Helper()
	for _, p := range s.Ports {
		if out, err := exec.Command("ip", "tuntap", "add", "dev", p.Name, "mode", "tap", "vnet_hdr").CombinedOutput(); err != nil {
			t.Fatalf("add tap %s: %v: %s", p.Name, err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", p.Name).Run() })
		if out, err := exec.Command("ip", "link", "set", p.Name, "up").CombinedOutput(); err != nil {
			t.Fatalf("set tap %s up: %v: %s", p.Name, err, out)
		}
	}
}

// wanted is a director of that name on the newest image.
func wanted(t *testing.T, name string, cid uint32) guests.Spec {
	t.Helper()
	id, err := store().Resolve("director", policy.DriverKVM)
	if err != nil {
		t.Fatal(err)
	}
	return guests.Define(policy.Guest{
		Name: policy.GuestName(name), Driver: policy.DriverKVM, Memory: 256 << 20, CPUs: 1, CID: cid,
		Ports: []policy.Port{
			{Name: fmt.Sprintf("kt%d.0", cid), MAC: policy.MAC{2, 0, 0, 0, byte(cid), 0}},
			{Name: fmt.Sprintf("kt%d.1", cid), MAC: policy.MAC{2, 0, 0, 0, byte(cid), 1}},
		},
	}, id)
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
	t.Logf("%-12s %v", what, time.Since(began).Round(100*time.Microsecond))
}

// said waits for a word on the machine's console.
func said(t *testing.T, d *Driver, name, word string, times int, limit time.Duration) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		text, err := os.ReadFile(filepath.Join(d.Dir, name, "console.log"))
		if err == nil && strings.Count(string(text), word) >= times {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not say %q %d times: %v\n%s", name, word, times, err, text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestLifeOfAMachine(t *testing.T) {
	ctx := context.Background()
	const name = "life-dir1"
	d := blade(t)
	spec := wanted(t, name, 71)
	taps(t, spec)

	do(t, "create", func() error { return d.Create(ctx, spec) })
	if diff := cmp.Diff(guests.Observed{Spec: spec, Phase: guests.Stopped, Cloned: true, Defined: true}, observed(t, d, name)); diff != "" {
		t.Errorf("after create (-want +got):\n%s", diff)
	}
	do(t, "create again", func() error { return d.Create(ctx, spec) })
	if out, err := exec.Command("qemu-img", "check", filepath.Join(d.Dir, name, "disk.qcow2")).CombinedOutput(); err != nil {
		t.Errorf("check clone: %v: %s", err, out)
	}
	began := time.Now()
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	do(t, "helper runs", func() error { said(t, d, name, "bladeguest is init", 1, 3*time.Minute); return nil })
	t.Logf("start to helper %v", time.Since(began))

	o := observed(t, d, name)
	if o.Phase != guests.Running || o.PID == 0 || o.Stale || time.Since(o.Since) < 0 || time.Since(o.Since) > 5*time.Minute {
		t.Errorf("after start: %+v", o)
	}
	if diff := cmp.Diff(spec, o.Spec); diff != "" {
		t.Errorf("definition read back (-want +got):\n%s", diff)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", o.PID))
	if err != nil || !strings.Contains(string(cmdline), "vhost=on") && !strings.Contains(string(cmdline), `"vhost":true`) {
		t.Errorf("no vhost in qemu's arguments, %v: %s", err, strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	do(t, "start again", func() error { return d.Start(ctx, spec.Name) })
	if again := observed(t, d, name); again.PID != o.PID {
		t.Errorf("a second start changed qemu from %d to %d", o.PID, again.PID)
	}
	if err := d.Create(ctx, spec); err == nil || !strings.Contains(err.Error(), "it runs") {
		t.Errorf("create of a running machine: %v", err)
	}
	if err := d.Destroy(ctx, spec.Name); err == nil || !strings.Contains(err.Error(), "it runs") {
		t.Errorf("destroy of a running machine: %v", err)
	}
	do(t, "stop", func() error { return d.Stop(ctx, spec.Name, 3*time.Minute) })
	said(t, d, name, "power off", 1, time.Second) // by the button, not by the plug
	do(t, "stop again", func() error { return d.Stop(ctx, spec.Name, time.Second) })
	if o := observed(t, d, name); o.Phase != guests.Stopped || o.PID != 0 {
		t.Errorf("after stop: %+v", o)
	}
	for _, p := range spec.Ports {
		if out, err := exec.Command("ip", "link", "show", "dev", p.Name).CombinedOutput(); err != nil {
			t.Errorf("tap %s did not outlive the machine: %v: %s", p.Name, err, out)
		}
	}
	do(t, "restart", func() error { return d.Start(ctx, spec.Name) })
	said(t, d, name, "bladeguest is init", 2, 3*time.Minute)
	do(t, "kill", func() error { return d.Stop(ctx, spec.Name, 0) })
	do(t, "destroy", func() error { return d.Destroy(ctx, spec.Name) })
	do(t, "destroy again", func() error { return d.Destroy(ctx, spec.Name) })
	nothingLeft(t, d, name)
}

// nothingLeft looks for a guest's name where libvirt, QEMU and we keep things.
func nothingLeft(t *testing.T, d *Driver, name string) {
	t.Helper()
	if o := observed(t, d, name); o.Phase != "" {
		t.Errorf("after destroy: %+v", o)
	}
	for _, dir := range []string{d.Dir, "/etc/libvirt/qemu", "/run/libvirt/qemu", "/var/lib/libvirt/qemu", "/var/log/libvirt/qemu", "/sys/fs/cgroup"} {
		out, err := exec.Command("find", dir, "-name", "*"+name+"*").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("left in %s: %s, %v", dir, out, err)
		}
	}
}

// What libvirt's own tool thinks of our definition, by its schema.
func TestDefinitionIsValid(t *testing.T) {
	const name = "valid-dir1"
	d := blade(t)
	s := wanted(t, name, 72)
	img, err := d.Images.Get(s.Image)
	if err != nil {
		t.Fatal(err)
	}
	text, err := domain.Encode(domain.Machine{Spec: s, Dir: d.dir(s.Name), Image: img})
	if err != nil {
		t.Fatal(err)
	}
	err = d.call(context.Background(), func(c *libvirt.Connect) error {
		dom, err := c.DomainDefineXMLFlags(string(text), libvirt.DOMAIN_DEFINE_VALIDATE)
		if err != nil {
			return err
		}
		return dom.Free()
	})
	if err != nil {
		t.Error(err)
	}
	wrong := strings.Replace(string(text), "<vsock", "<vsocket", 1)
	err = d.call(context.Background(), func(c *libvirt.Connect) error {
		_, err := c.DomainDefineXMLFlags(strings.Replace(wrong, "</vsock", "</vsocket", 1), libvirt.DOMAIN_DEFINE_VALIDATE)
		return err
	})
	if err == nil {
		t.Error("the schema takes a wrong definition too: this test shows nothing")
	}
}

func TestForeignDomainIsUntouched(t *testing.T) {
	ctx := context.Background()
	const name = "foreign-dir1"
	d := blade(t)
	s := wanted(t, name, 73)
	xml := `<domain type='qemu'><name>` + name + `</name><memory unit='MiB'>64</memory><os><type>hvm</type></os>
		<metadata><guest xmlns="https://example.org/other" name="` + name + `" layout="1"/></metadata></domain>`
	var before string
	err := d.call(ctx, func(c *libvirt.Connect) error {
		dom, err := c.DomainDefineXML(xml)
		if err != nil {
			return err
		}
		defer func() { _ = dom.Free() }()
		before, err = dom.GetXMLDesc(0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		err := d.call(ctx, func(c *libvirt.Connect) error {
			dom, err := c.LookupDomainByName(name)
			if err != nil {
				return err
			}
			defer func() { _ = dom.Free() }()
			after, err := dom.GetXMLDesc(0)
			if after != before {
				t.Errorf("it changed:\n%s", cmp.Diff(before, after))
			}
			return errors.Join(err, dom.Undefine())
		})
		if err != nil {
			t.Error(err)
		}
	}()
	if o := observed(t, d, name); o.Phase != guests.Foreign || o.Memory != 0 {
		t.Errorf("observed %+v", o)
	}
	for what, f := range map[string]func() error{
		"create": func() error { return d.Create(ctx, s) },
		"start":  func() error { return d.Start(ctx, s.Name) },
		"stop":   func() error { return d.Stop(ctx, s.Name, 0) },
	} {
		if err := f(); !errors.Is(err, errForeign) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := d.Destroy(ctx, s.Name); err != nil {
		t.Errorf("destroy: %v", err)
	}
}

func TestNoLibvirtd(t *testing.T) {
	began := time.Now()
	d := New(Options{Dir: t.TempDir(), Images: store(), URI: "qemu+unix:///system?socket=/nowhere/libvirt-sock"})
	_, err := d.Observe(context.Background())
	if err == nil || !strings.Contains(err.Error(), "libvirtd cannot be reached") || strings.Contains(err.Error(), "virError") {
		t.Errorf("observe: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	t.Log(err)
}

// A daemon that hangs must not hold up the agent, and is used again as soon as it answers.
func TestLibvirtdHangs(t *testing.T) {
	ctx := context.Background()
	d := blade(t)
	d.Timeout = 2 * time.Second
	if _, err := d.Observe(ctx); err != nil {
		t.Fatal(err)
	}
	pid := libvirtd(t)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	for range 3 * maxLost {
		began := time.Now()
		_, err := d.Observe(ctx)
		if err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("observe: %v", err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		if _, err := d.Observe(ctx); err == nil {
			break
		} else if time.Since(began) > 30*time.Second {
			t.Fatalf("libvirtd goes on, the driver does not: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("answers again %v after libvirtd went on", time.Since(began))
}

func libvirtd(t *testing.T) int {
	t.Helper()
	for _, file := range []string{"/run/libvirt/libvirtd.pid", "/run/libvirtd.pid"} {
		if text, err := os.ReadFile(file); err == nil {
			var pid int
			if _, err := fmt.Sscan(string(text), &pid); err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no libvirtd runs")
	return 0
}

// Machines outlive libvirtd, and the driver finds them again after it is back.
func TestLibvirtdIsKilled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const name = "restart-dir1"
	d := blade(t)
	var wakes atomic.Int32
	go func() { _ = d.Events(ctx, func() { wakes.Add(1) }) }()
	spec := wanted(t, name, 74)
	taps(t, spec)
	do(t, "create", func() error { return d.Create(ctx, spec) })
	do(t, "start", func() error { return d.Start(ctx, spec.Name) })
	before := observed(t, d, name)
	pid := libvirtd(t)
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	wakes.Store(0)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for wakes.Load() == 0 {
		if time.Now().After(deadline) {
			t.Fatal("libvirtd's death did not wake")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := d.Observe(ctx); err == nil {
		t.Error("observe without libvirtd: no error")
	} else {
		t.Log(err)
	}
	args := strings.Split(strings.Trim(string(arguments), "\x00"), "\x00")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("start libvirtd again, %v: %v: %s", args, err, out)
	}
	began := time.Now()
	for {
		if o := observedOr(d, name); o.Phase == guests.Running && o.PID == before.PID {
			break
		} else if time.Since(began) > 60*time.Second {
			t.Fatalf("the machine is not found again: %+v, was %+v", o, before)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("found again %v after libvirtd's start", time.Since(began))
}

func observedOr(d *Driver, name string) guests.Observed {
	found, err := d.Observe(context.Background())
	if err != nil {
		return guests.Observed{Reason: err.Error()}
	}
	for _, o := range found {
		if string(o.Name) == name {
			return o
		}
	}
	return guests.Observed{}
}

func TestHalfMachines(t *testing.T) {
	ctx := context.Background()
	const name = "half-dir1"
	d := blade(t)
	spec := wanted(t, name, 75)
	for _, missing := range []string{"disk.qcow2", "image"} {
		do(t, "create", func() error { return d.Create(ctx, spec) })
		if err := os.Remove(filepath.Join(d.Dir, name, missing)); err != nil {
			t.Fatal(err)
		}
		if o := observed(t, d, name); o.Phase != guests.Partial {
			t.Errorf("without %s: %+v", missing, o)
		}
	}
	do(t, "create", func() error { return d.Create(ctx, spec) })
	err := d.domain(ctx, spec.Name, (*libvirt.Domain).Undefine)
	if err != nil {
		t.Fatal(err)
	}
	if o := observed(t, d, name); o.Phase != guests.Partial || !o.Cloned {
		t.Errorf("without a definition: %+v", o)
	}
	do(t, "create", func() error { return d.Create(ctx, spec) })
	if o := observed(t, d, name); o.Phase != guests.Stopped {
		t.Errorf("after create: %+v", o)
	}
	if err := d.Start(ctx, spec.Name); err == nil {
		t.Error("start without taps: no error")
	} else {
		t.Log(err)
	}
	do(t, "destroy", func() error { return d.Destroy(ctx, spec.Name) })
	nothingLeft(t, d, name)
}
