package kvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/bladenet/bladenet/guests/kvm/domain"
	"github.com/bladenet/bladenet/policy"
)

// Console couples the machine's serial line with files until the machine, the first file or ctx ends. One at a time has it.
func (d *Driver) Console(ctx context.Context, name policy.GuestName, files [3]*os.File) error {
	if err := d.console(ctx, name, files); err != nil {
		return fmt.Errorf("console of domain %s: %w", name, err)
	}
	return nil
}

func (d *Driver) console(ctx context.Context, name policy.GuestName, files [3]*os.File) error {
	path := ""
	err := d.domain(ctx, name, func(dom *libvirt.Domain) error {
		active, err := dom.IsActive()
		if err != nil {
			return err
		}
		if !active {
			return errors.New("it does not run")
		}
		text, err := dom.GetXMLDesc(0)
		if err != nil {
			return err
		}
		path, err = domain.Console([]byte(text))
		return err
	})
	if err != nil {
		return err
	}
	if path == "" {
		return errors.New("it has no serial line")
	}
	line, err := openLine(path)
	if err != nil {
		return err
	}
	defer line.Close()
	return couple(ctx, line, files[0], files[1])
}

// openLine opens a pseudoterminal for one reader at a time.
func openLine(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	line := os.NewFile(uintptr(fd), path)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		line.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("somebody else has it")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return line, nil
}

// couple copies from in to line and from line to out until one of the three, or ctx, ends. A reader of in that waits for a key then is
// left behind until in ends, which it does with the client.
func couple(ctx context.Context, line, in, out *os.File) error {
	ended := make(chan error, 2)
	go func() {
		// As a plain writer: a file would copy within the kernel and hold the line, which is to be closed, while it waits for in.
		_, err := io.Copy(struct{ io.Writer }{line}, in)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(out, line)
		if errors.Is(err, unix.EIO) {
			err = nil // the machine has ended
		}
		ended <- err
	}()
	stop := context.AfterFunc(ctx, func() { _ = line.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := <-ended
	if ctx.Err() != nil {
		return nil
	}
	return err
}
