package lxc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	golxc "github.com/lxc/go-lxc"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/lxc/config"
	"github.com/bladenet/bladenet/policy"
)

// Observe lists the folders of the driver's own path. There is nothing foreign in it.
func (d *Driver) Observe(ctx context.Context) ([]guests.Observed, error) {
	entries, err := os.ReadDir(d.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []guests.Observed
	var inits []int
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		o, err := d.observeOne(ctx, policy.GuestName(e.Name()))
		if err != nil {
			return nil, fmt.Errorf("observe container %s: %w", e.Name(), err)
		}
		if o.Phase == "" {
			continue // removed meanwhile
		}
		out = append(out, o)
		if o.PID > 0 {
			inits = append(inits, o.PID)
		}
	}
	d.follow(inits)
	return out, nil
}

// observeOne finds one container; its Phase is empty when there is no trace of it.
func (d *Driver) observeOne(ctx context.Context, name policy.GuestName) (guests.Observed, error) {
	o := guests.Observed{Spec: guests.Spec{Name: name, Driver: policy.DriverLXC}}
	dir := d.dir(name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return o, nil
	} else if err != nil {
		return o, err
	}
	o.Phase = guests.Partial
	if _, err := os.Stat(filepath.Join(dir, "delta")); err == nil {
		o.Cloned = true
	}
	text, err := os.ReadFile(filepath.Join(dir, "config"))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	o.Defined = true
	s, stale, err := config.Decode(text)
	if err != nil || s.Name != name {
		s, stale = guests.Spec{Name: name, Driver: policy.DriverLXC}, true
	}
	o.Spec, o.Stale = s, stale
	mark, err := os.ReadFile(filepath.Join(dir, image.MarkFile))
	if err != nil || string(bytes.TrimSpace(mark)) != s.Image {
		o.Cloned = false // whose clone the delta is cannot be told
	}
	if _, err := readIDs(filepath.Join(dir, idsFile)); err != nil && !s.Privileged {
		o.Cloned = false // nor whose files are in it
	}
	err = d.handle(ctx, name, func(c *golxc.Container) error {
		ask(c, &o)
		return nil
	})
	if errors.Is(err, errSilent) {
		// One container that hangs must not hide the others.
		o = guests.Observed{Spec: s, Phase: guests.Paused, Cloned: o.Cloned, Defined: true, Stale: stale, Reason: errSilent.Error()}
		err = nil
	}
	return o, err
}

// ask completes o with what liblxc says.
func ask(c *golxc.Container, o *guests.Observed) {
	switch state := c.State(); state {
	case golxc.STOPPED:
		if o.Cloned {
			o.Phase = guests.Stopped
		}
		if populated(o.Name) {
			o.Reason = "its monitor died: what is left of it is ended before it starts"
		}
		return
	case golxc.FROZEN, golxc.FREEZING, golxc.THAWED:
		o.Phase, o.Reason = guests.Paused, strings.ToLower(state.String())
	default:
		o.Phase = guests.Running
	}
	if o.PID = c.InitPid(); o.PID > 0 {
		o.Since = guests.Started(o.PID)
	}
}
