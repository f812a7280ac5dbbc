package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	golxc "github.com/lxc/go-lxc"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/lxc/config"
	"github.com/bladenet/bladenet/guests/volume"
	"github.com/bladenet/bladenet/policy"
)

// DefaultDir is where containers live.
const DefaultDir = "/var/lib/bladenet/lxc"

// Options say where things are.
type Options struct {
	Dir       string                        // absolute; on a file system that can be an overlay's upper layer
	Images    image.Store                   // base images
	Volumes   volume.Store                  // what outlives clones; by default beside Dir
	Namespace func(policy.GuestName) string // path of a guest's network namespace
	AppArmor  string                        // profile of the containers; empty means liblxc's own where the kernel has it, else unconfined
	Timeout   time.Duration                 // of a single exchange with a container's monitor; 0 means 5 s
}

// Driver is guests.Driver for containers.
type Driver struct {
	Options
	mu     sync.Mutex
	watch  *watcher                  // while Events runs
	ids    map[policy.GuestName]span // of all containers, once they are learnt
	silent map[policy.GuestName]int  // calls that a container's monitor has not answered yet
}

var _ guests.Driver = (*Driver)(nil)

// New makes a driver; it touches nothing.
func New(o Options) *Driver {
	if o.Volumes.Dir == "" {
		o.Volumes.Dir = filepath.Join(filepath.Dir(o.Dir), "volumes")
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	return &Driver{Options: o, silent: map[policy.GuestName]int{}}
}

func (d *Driver) dir(name policy.GuestName) string { return filepath.Join(d.Dir, string(name)) }

// errSilent is met when a container's monitor does not answer.
var errSilent = errors.New("its monitor does not answer")

// handle is one exchange with a container, within the driver's time.
func (d *Driver) handle(ctx context.Context, name policy.GuestName, f func(*golxc.Container) error) error {
	return d.handleFor(ctx, d.Timeout, name, f)
}

// handleFor runs f on a container object of its own, never shared: liblxc's objects are not safe to share. f runs aside, so that a
// monitor that hangs holds up one call only, until limit or the context ends it; later calls for the same container fail at once
// until the first has come back.
func (d *Driver) handleFor(ctx context.Context, limit time.Duration, name policy.GuestName, f func(*golxc.Container) error) error {
	if d.isSilent(name) {
		return errSilent
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		c, err := golxc.NewContainer(string(name), d.Dir)
		if err != nil {
			done <- err
			return
		}
		err = f(c)
		_ = c.Release()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		d.setSilent(name, 1)
		go func() {
			<-done
			d.setSilent(name, -1)
		}()
		return context.Cause(ctx)
	}
}

func (d *Driver) isSilent(name policy.GuestName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.silent[name] > 0
}

// setSilent counts the calls for a container that were left behind.
func (d *Driver) setSilent(name policy.GuestName, change int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent[name] += change; d.silent[name] == 0 {
		delete(d.silent, name)
	}
}

// Create makes the container's folder: mark of the image, delta, filter of system calls, and last the configuration.
func (d *Driver) Create(ctx context.Context, s guests.Spec) error {
	if err := d.create(ctx, s); err != nil {
		return fmt.Errorf("create container %s: %w", s.Name, err)
	}
	return nil
}

func (d *Driver) create(ctx context.Context, s guests.Spec) error {
	img, err := d.Images.Get(s.Image)
	if err != nil {
		return err
	}
	if img.Kind != policy.DriverLXC {
		return fmt.Errorf("image %s is for %s guests", img.ID, img.Kind)
	}
	if o, err := d.observeOne(ctx, s.Name); err != nil {
		return err
	} else if o.Phase == guests.Running || o.Phase == guests.Paused {
		return errors.New("it runs")
	}
	dir := d.dir(s.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var base uint32
	if !s.Privileged {
		if err := d.passable(); err != nil {
			return err
		}
		if base, err = d.reserve(s.Name); err != nil {
			return err
		}
	}
	if err := d.bound(s); err != nil {
		return err
	}
	mark := filepath.Join(dir, image.MarkFile)
	if old, err := os.ReadFile(mark); err != nil || string(old) != img.ID+"\n" || !owned(filepath.Join(dir, "delta"), base) {
		// A delta over another image, or with the ids of others, is no clone of this one. The configuration goes first: without it the
		// guest counts as partial.
		for _, part := range []string{"config", "delta", "work"} {
			if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
				return err
			}
		}
		if err := writeFile(mark, []byte(img.ID+"\n")); err != nil {
			return err
		}
	}
	if err := makeFolders(dir, base); err != nil {
		return err
	}
	for _, v := range s.Volumes {
		if err := d.Volumes.Make(s.Name, v, img.Rootfs()); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(dir, "seccomp"), config.Seccomp()); err != nil {
		return err
	}
	profile := d.AppArmor
	if profile == "" {
		profile = loadedProfile(profiles)
	}
	return writeFile(filepath.Join(dir, "config"), config.Encode(config.Container{
		Spec: s, Dir: dir, Image: img, Namespace: d.Namespace(s.Name), VolumesAt: d.Volumes.Guest(s.Name), AppArmor: profile, FirstID: base,
	}))
}

// writeFile replaces a file in one step.
func writeFile(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Start boots the container in its namespace.
func (d *Driver) Start(ctx context.Context, name policy.GuestName) error {
	if err := d.start(ctx, name); err != nil {
		return fmt.Errorf("start container %s: %w", name, err)
	}
	return nil
}

func (d *Driver) start(ctx context.Context, name policy.GuestName) error {
	o, err := d.observeOne(ctx, name)
	if err != nil {
		return err
	}
	switch o.Phase {
	case guests.Running, guests.Paused:
		return nil
	case guests.Partial, "":
		return errors.New("it is not created")
	}
	img, err := d.Images.Get(o.Image)
	if err != nil {
		return err
	}
	if len(img.Command) == 0 {
		return fmt.Errorf("image %s names no command", img.ID)
	}
	if _, err := os.Stat(d.Namespace(name)); err != nil {
		return fmt.Errorf("its network namespace is not ready: %w", err)
	}
	// A start reads much of the image on a cold blade.
	const limit = time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not run within %s", limit))
	defer cancel()
	if err := clear(ctx, name); err != nil {
		return err
	}
	if err := leaveShare(); err != nil {
		return err
	}
	root, err := d.rootArguments(o.Spec, img)
	if err != nil {
		return err
	}
	if err := d.spawn(ctx, name, root, img.Command); err != nil {
		return err
	}
	return weigh(name, o.IOWeight)
}

// Stop sends the image's halt signal, waits, then kills. A container whose monitor is gone or hangs is ended through its control groups.
func (d *Driver) Stop(ctx context.Context, name policy.GuestName, grace time.Duration) error {
	err := d.handleFor(ctx, grace+d.Timeout, name, func(c *golxc.Container) error {
		if !c.Running() {
			return nil
		}
		if c.State() == golxc.FROZEN {
			if err := c.Unfreeze(); err != nil {
				return err
			}
		}
		if grace >= time.Second && c.Shutdown(grace) == nil {
			return nil
		}
		if !c.Running() {
			return nil
		}
		if err := c.Stop(); err != nil && c.Running() {
			return err
		}
		return nil
	})
	if errors.Is(err, errSilent) || err == nil && populated(name) {
		err = clear(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("stop container %s: %w", name, err)
	}
	return nil
}

// Destroy removes the container's folder, the definition first, and its control groups.
func (d *Driver) Destroy(ctx context.Context, name policy.GuestName) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it did not end within a minute"))
	defer cancel()
	o, err := d.observeOne(ctx, name)
	if err != nil {
		return fmt.Errorf("destroy container %s: %w", name, err)
	}
	if o.Phase == guests.Running || o.Phase == guests.Paused {
		return fmt.Errorf("destroy container %s: it runs", name)
	}
	if err := clear(ctx, name); err != nil {
		return fmt.Errorf("destroy container %s: %w", name, err)
	}
	if err := d.unbound(name); err != nil {
		return fmt.Errorf("destroy container %s: %w", name, err)
	}
	// The folder goes last: whoever finds it ends what was begun. Without the configuration nobody makes the lock anew.
	for _, path := range []string{filepath.Join(d.dir(name), "config"), d.lockFile(name), d.dir(name)} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("destroy container %s: %w", name, err)
		}
	}
	d.release(name)
	return nil
}
