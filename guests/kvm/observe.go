package kvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/kvm/domain"
	"github.com/bladenet/bladenet/policy"
)

// Observe lists every domain, foreign ones by name only, and folders without a domain.
func (d *Driver) Observe(ctx context.Context) ([]guests.Observed, error) {
	var out []guests.Observed
	err := d.call(ctx, func(c *libvirt.Connect) error {
		found, err := observeAll(c)
		out = found
		return err
	})
	if err != nil {
		return nil, err
	}
	known := map[policy.GuestName]bool{}
	for i := range out {
		known[out[i].Name] = true
		if out[i].Phase != guests.Foreign {
			d.complete(&out[i])
		}
	}
	entries, err := os.ReadDir(d.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	for _, e := range entries {
		name := policy.GuestName(e.Name())
		if e.IsDir() && !known[name] && !strings.HasPrefix(e.Name(), ".") {
			o := guests.Observed{Spec: guests.Spec{Name: name, Driver: policy.DriverKVM}, Phase: guests.Partial}
			o.Cloned = d.cloneOf(name) != ""
			out = append(out, o)
		}
	}
	return out, nil
}

func observeAll(c *libvirt.Connect) ([]guests.Observed, error) {
	domains, err := c.ListAllDomains(0)
	if err != nil {
		return nil, err
	}
	defer func() {
		for i := range domains {
			_ = domains[i].Free()
		}
	}()
	var out []guests.Observed
	for i := range domains {
		o, err := observeDomain(&domains[i])
		if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
			continue // undefined meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func observeDomain(dom *libvirt.Domain) (guests.Observed, error) {
	text, err := dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
	if err != nil {
		return guests.Observed{}, err
	}
	s, ours, stale, err := domain.Decode([]byte(text))
	if err != nil {
		return guests.Observed{}, err
	}
	o := guests.Observed{Spec: s, Phase: guests.Foreign, Defined: true, Stale: stale}
	if !ours {
		return o, nil
	}
	state, reason, err := dom.GetState()
	if err != nil {
		return guests.Observed{}, err
	}
	o.Phase, o.Reason = phase(state, reason)
	return o, nil
}

// diskError is why libvirt pauses a machine whose disk could not be written: QEMU keeps the write and makes it again when the machine goes on.
const diskError = "paused after a disk error (is the blade's disk full?)"

// room is what must be free on the machines' file system before a machine that ran out of it goes on, in bytes.
const room = 64 << 20

// phase puts libvirt's states into ours, with a word about the last end.
func phase(state libvirt.DomainState, reason int) (guests.Phase, string) {
	switch state {
	case libvirt.DOMAIN_RUNNING, libvirt.DOMAIN_BLOCKED, libvirt.DOMAIN_SHUTDOWN, libvirt.DOMAIN_PMSUSPENDED:
		return guests.Running, ""
	case libvirt.DOMAIN_PAUSED:
		switch libvirt.DomainPausedReason(reason) {
		case libvirt.DOMAIN_PAUSED_IOERROR:
			return guests.Paused, diskError
		case libvirt.DOMAIN_PAUSED_STARTING_UP:
			return guests.Running, ""
		}
		return guests.Paused, "paused"
	case libvirt.DOMAIN_CRASHED:
		return guests.Stopped, "crashed"
	}
	switch libvirt.DomainShutoffReason(reason) {
	case libvirt.DOMAIN_SHUTOFF_CRASHED:
		return guests.Stopped, "crashed"
	case libvirt.DOMAIN_SHUTOFF_FAILED:
		return guests.Stopped, "failed to start"
	case libvirt.DOMAIN_SHUTOFF_SHUTDOWN:
		return guests.Stopped, "shut down"
	case libvirt.DOMAIN_SHUTOFF_DESTROYED:
		return guests.Stopped, "was stopped"
	}
	return guests.Stopped, ""
}

// complete adds what is on disk: a domain without its clone is half a guest.
func (d *Driver) complete(o *guests.Observed) {
	of := d.cloneOf(o.Name)
	o.Cloned = of != "" && of == o.Image
	if !o.Cloned && o.Phase == guests.Stopped {
		o.Phase = guests.Partial
	}
	if o.Phase != guests.Running && o.Phase != guests.Paused {
		return
	}
	o.Resumes = o.Phase == guests.Paused && o.Reason == diskError && d.hasRoom()
	text, err := os.ReadFile(filepath.Join(d.RunDir, string(o.Name)+".pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		o.PID, o.Since = pid, guests.Started(pid)
	}
}

// hasRoom says whether machines can write to their disks: QEMU is not root, so it gets what others than root may have.
func (d *Driver) hasRoom() bool {
	var fs unix.Statfs_t
	return unix.Statfs(d.Dir, &fs) == nil && fs.Bavail*uint64(fs.Bsize) >= room
}

// cloneOf is the identity of the image below a machine's disk; empty when the clone is not whole.
func (d *Driver) cloneOf(name policy.GuestName) string {
	mark, err := os.ReadFile(filepath.Join(d.dir(name), image.MarkFile))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(d.dir(name), "disk.qcow2")); err != nil {
		return ""
	}
	return strings.TrimSpace(string(mark))
}
