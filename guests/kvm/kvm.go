package kvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/kvm/domain"
	"github.com/bladenet/bladenet/policy"
)

// DefaultDir is where machines' disks and consoles live.
const DefaultDir = "/var/lib/bladenet/kvm"

// Options say where things are.
type Options struct {
	Dir      string        // absolute
	Images   image.Store   // base images
	URI      string        // libvirt's connection; empty means qemu:///system
	RunDir   string        // where libvirt writes <domain>.pid; empty means /run/libvirt/qemu
	LogDir   string        // where libvirt writes <domain>.log; empty means /var/log/libvirt/qemu
	Timeout  time.Duration // of a single exchange with libvirtd; 0 means 20 s
	Emulated bool          // run machines without hardware help
}

// Driver is guests.Driver for machines.
type Driver struct {
	Options
	link    *link
	changes chan struct{}
}

var _ guests.Driver = (*Driver)(nil)

// New makes a driver. It connects when it is first used, and again whenever the connection broke.
func New(o Options) *Driver {
	for _, d := range []struct {
		field *string
		value string
	}{{&o.URI, "qemu:///system"}, {&o.RunDir, "/run/libvirt/qemu"}, {&o.LogDir, "/var/log/libvirt/qemu"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	d := &Driver{Options: o, changes: make(chan struct{}, 1)}
	d.link = &link{uri: o.URI, changed: func() {
		select {
		case d.changes <- struct{}{}:
		default:
		}
	}}
	return d
}

// Close ends the connection to libvirtd. Machines go on.
func (d *Driver) Close() { d.link.shut() }

func (d *Driver) dir(name policy.GuestName) string { return filepath.Join(d.Dir, string(name)) }

// ConsoleLog is where qemu writes the machine's serial line.
func (d *Driver) ConsoleLog(name policy.GuestName) string {
	return filepath.Join(d.dir(name), "console.log")
}

// startTimeout is how long QEMU may take to come up: libvirt probes it first, after it was upgraded, and the disk may be cold.
const startTimeout = 2 * time.Minute

// call is one exchange with libvirtd, within the driver's time and the caller's.
func (d *Driver) call(ctx context.Context, f func(*libvirt.Connect) error) error {
	return d.callFor(ctx, d.Timeout, f)
}

func (d *Driver) callFor(ctx context.Context, limit time.Duration, f func(*libvirt.Connect) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("waited %s", limit))
	defer cancel()
	return sentence(d.link.call(ctx, f))
}

// domain runs f with a domain of ours. absent is returned when there is none of that name.
func (d *Driver) domain(ctx context.Context, name policy.GuestName, f func(*libvirt.Domain) error) error {
	return d.call(ctx, onDomain(name, f))
}

func onDomain(name policy.GuestName, f func(*libvirt.Domain) error) func(*libvirt.Connect) error {
	return func(c *libvirt.Connect) error {
		dom, err := c.LookupDomainByName(string(name))
		if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
			return errAbsent
		}
		if err != nil {
			return err
		}
		defer func() { _ = dom.Free() }()
		text, err := dom.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
		if err != nil {
			return err
		}
		if _, ours, _, err := domain.Decode([]byte(text)); err != nil || !ours {
			return errors.Join(errForeign, err)
		}
		return f(dom)
	}
}

var (
	errAbsent  = errors.New("there is no such domain")
	errForeign = errors.New("the domain of that name was not made by bladenet")
)

// Create makes the machine's folder and disk, and defines its domain.
func (d *Driver) Create(ctx context.Context, s guests.Spec) error {
	if err := d.create(ctx, s); err != nil {
		return fmt.Errorf("create domain %s: %w", s.Name, err)
	}
	return nil
}

func (d *Driver) create(ctx context.Context, s guests.Spec) error {
	img, err := d.Images.Get(s.Image)
	if err != nil {
		return err
	}
	if img.Kind != policy.DriverKVM {
		return fmt.Errorf("image %s is for %s guests", img.ID, img.Kind)
	}
	text, err := domain.Encode(domain.Machine{Spec: s, Dir: d.dir(s.Name), Image: img, Emulated: d.Emulated})
	if err != nil {
		return err
	}
	err = d.domain(ctx, s.Name, func(dom *libvirt.Domain) error {
		active, err := dom.IsActive()
		if err == nil && active {
			return errors.New("it runs")
		}
		return err
	})
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	if err := d.clone(s.Name, img); err != nil {
		return err
	}
	return d.call(ctx, func(c *libvirt.Connect) error {
		dom, err := c.DomainDefineXML(string(text))
		if err != nil {
			return err
		}
		return dom.Free()
	})
}

// clone makes the disk over the image, unless it is there and of that image already.
func (d *Driver) clone(name policy.GuestName, img image.Image) error {
	dir := d.dir(name)
	// Searchable by others: QEMU runs as a user of its own, and its files in here are that user's.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	mark, disk := filepath.Join(dir, image.MarkFile), filepath.Join(dir, "disk.qcow2")
	if old, err := os.ReadFile(mark); err == nil && string(old) == img.ID+"\n" {
		if _, err := os.Stat(disk); err == nil {
			return nil
		}
	}
	if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := clone(disk, img.Root(), img.DiskSize); err != nil {
		return err
	}
	if err := os.WriteFile(mark+".new", []byte(img.ID+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(mark+".new", mark)
}

// Start boots the machine, or lets one go on that waits since a disk error; its taps must be there.
func (d *Driver) Start(ctx context.Context, name policy.GuestName) error {
	err := d.callFor(ctx, startTimeout, onDomain(name, func(dom *libvirt.Domain) error {
		state, reason, err := dom.GetState()
		if err != nil {
			return err
		}
		if _, why := phase(state, reason); why == diskError {
			return dom.Resume()
		}
		if active, err := dom.IsActive(); err != nil || active {
			return err
		}
		return dom.Create()
	}))
	if err != nil {
		return fmt.Errorf("start domain %s: %w", name, err)
	}
	return nil
}

// Stop presses the power button, waits, then pulls the plug.
func (d *Driver) Stop(ctx context.Context, name policy.GuestName, grace time.Duration) error {
	if err := d.stop(ctx, name, grace); err != nil && !errors.Is(err, errAbsent) {
		return fmt.Errorf("stop domain %s: %w", name, err)
	}
	return nil
}

func (d *Driver) stop(ctx context.Context, name policy.GuestName, grace time.Duration) error {
	active, err := d.active(ctx, name)
	if err != nil || !active {
		return err
	}
	ended, err := d.press(ctx, name, grace)
	if err != nil || ended {
		return err
	}
	err = d.domain(ctx, name, (*libvirt.Domain).Destroy)
	if errors.Is(err, libvirt.ERR_OPERATION_INVALID) {
		return nil // it ended meanwhile
	}
	return err
}

// press presses the power button, again every few seconds because a machine that still boots does not hear it, and reports whether the
// machine ended within grace. One that is paused, or whose button cannot be pressed, gets no grace.
func (d *Driver) press(ctx context.Context, name policy.GuestName, grace time.Duration) (ended bool, err error) {
	const again, look = 3 * time.Second, 50 * time.Millisecond
	button := func(dom *libvirt.Domain) error { return dom.ShutdownFlags(libvirt.DOMAIN_SHUTDOWN_ACPI_POWER_BTN) }
	var pressed time.Time
	for began := time.Now(); time.Since(began) < grace; {
		if time.Since(pressed) >= again {
			if err := d.domain(ctx, name, button); err != nil {
				break // the plug follows
			}
			pressed = time.Now()
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(look):
		}
		if active, err := d.active(ctx, name); err != nil || !active {
			return true, err
		}
	}
	return false, nil
}

func (d *Driver) active(ctx context.Context, name policy.GuestName) (active bool, err error) {
	err = d.domain(ctx, name, func(dom *libvirt.Domain) error {
		active, err = dom.IsActive()
		return err
	})
	return active, err
}

// Destroy removes definition, disk and logs of a machine that does not run.
func (d *Driver) Destroy(ctx context.Context, name policy.GuestName) error {
	if err := d.destroy(ctx, name); err != nil {
		return fmt.Errorf("destroy domain %s: %w", name, err)
	}
	return nil
}

func (d *Driver) destroy(ctx context.Context, name policy.GuestName) error {
	err := d.domain(ctx, name, func(dom *libvirt.Domain) error {
		if active, err := dom.IsActive(); err != nil {
			return err
		} else if active {
			return errors.New("it runs")
		}
		return dom.UndefineFlags(libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
			libvirt.DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.DOMAIN_UNDEFINE_NVRAM)
	})
	if err != nil && !errors.Is(err, errAbsent) && !errors.Is(err, errForeign) {
		return err
	}
	foreign := errors.Is(err, errForeign)
	if err := os.RemoveAll(d.dir(name)); err != nil || foreign {
		return err
	}
	if err := os.Remove(filepath.Join(d.LogDir, string(name)+".log")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Events wakes on every change of a domain's life, when the connection breaks and when it is back.
func (d *Driver) Events(ctx context.Context, wake func()) error {
	const retry = 2 * time.Second
	up := false
	for {
		if err := d.call(ctx, func(*libvirt.Connect) error { return nil }); err == nil != up {
			up = !up
			wake() // what happened without a connection is only seen by looking
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.changes:
			wake()
		case <-time.After(retry):
		}
	}
}
