package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// virtiofsd is where Debian 12 has it.
const virtiofsd = "/usr/lib/qemu/virtiofsd"

// Supervise runs the machine of a lab until it ends, is told to (SIGTERM), or its time is over, and notes why. It is a process
// of its own with its own mounts, started by Up; qemu and virtiofsd are its children and die with it, whatever kills it.
func Supervise(name string) error {
	l, err := Open(name)
	if err != nil {
		return err
	}
	var s spec
	if err := l.read(fileSpec, &s); err != nil {
		return fmt.Errorf("read lab: %w", err)
	}
	// Up notes this process too, but may be killed before.
	self, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	if err := l.write(fileSupervisor, self); err != nil {
		return fmt.Errorf("note supervisor: %w", err)
	}
	// A child's parent-death signal follows the thread that started it.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	reason := supervise(ctx, l, s)
	return l.write(fileEnd, ending{reason.Error(), time.Now()})
}

// supervise returns why the machine has ended; everything it started has ended then too.
func supervise(ctx context.Context, l *Lab, s spec) error {
	children := &family{}
	defer children.end()
	if err := bindShares(l, s); err != nil {
		return err
	}
	for _, tag := range shares {
		err := children.start(l.path("virtiofsd-"+tag+".log"), virtiofsd,
			"--socket-path="+l.path(tag+".sock"), "-o", "source="+l.path(tag), "-o", "cache=auto", "-o", "sandbox=chroot")
		if err != nil {
			return err
		}
	}
	for _, tag := range shares {
		if err := children.await(l.path(tag + ".sock")); err != nil {
			return err
		}
	}
	if err := children.start(l.path(fileQEMU), "qemu-system-x86_64", qemuArgs(l, s)...); err != nil {
		return err
	}
	qemu := children.last()
	if err := children.await(l.path(fileMonitor)); err != nil {
		return err
	}
	m, err := openMonitor(l.path(fileMonitor))
	if err != nil {
		return err
	}
	defer m.conn.Close()
	port, err := m.forwardedPort()
	if err != nil {
		return err
	}
	machine, err := identify(qemu.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := l.write(fileRunning, running{port, machine}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go keepAwake(ctx, port)
	select {
	case <-ctx.Done():
		return errors.New("taken down")
	case <-time.After(s.TTL):
		return fmt.Errorf("its time to live is over (%v)", s.TTL)
	case <-qemu.done:
		err := fmt.Errorf("the machine has stopped (qemu: %w)", qemu.result())
		if lost := l.keepConsole(time.Now()); lost != nil {
			err = fmt.Errorf("%w; %w", err, lost)
		}
		return err
	}
}

// keepAwake sends a packet to the machine each second. An emulated processor that halts with nothing else to do may miss its timer's
// interrupt, and then sleeps until the next interrupt of any kind: 354 s were seen.
func keepAwake(ctx context.Context, port int) {
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if stream, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
				stream.Close()
			}
		}
	}
}

// bindShares shows the shares' folders read-only below the state folder, in this process's mounts only.
func bindShares(l *Lab, s spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for tag, folder := range map[string]string{"src": s.Source, "images": s.Images} {
		at := l.path(tag)
		if err := unix.Mount(folder, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("share %s: %w", folder, err)
		}
		if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("share %s read-only: %w", folder, err)
		}
	}
	return nil
}

// family is the children of a supervisor.
type family struct {
	children []*child
}

// child is one process; done is closed when it has ended.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func (c *child) result() error {
	if c.err == nil {
		return errors.New("status 0")
	}
	return c.err
}

// start starts a child that writes into a log file and dies with the calling thread.
func (f *family) start(log, program string, args ...string) error {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A snapshot is an unlinked file in TMPDIR: too big for a file system in memory.
	cmd.Env = append(os.Environ(), "TMPDIR=/var/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	f.children = append(f.children, c)
	return nil
}

func (f *family) last() *child { return f.children[len(f.children)-1] }

// await waits for the socket of the child that was started last, or for any child's end.
func (f *family) await(socket string) error {
	limit := time.Now().Add(15 * time.Second)
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		for _, c := range f.children {
			select {
			case <-c.done:
				return fmt.Errorf("%s ended: %w", filepath.Base(c.cmd.Path), c.result())
			case <-time.After(5 * time.Millisecond):
			}
		}
		if time.Now().After(limit) {
			return fmt.Errorf("wait for %s: not there after 15 s", socket)
		}
	}
}

// end kills every child, the last first, and waits for it. There is nothing to save: a lab's disk is thrown away.
func (f *family) end() {
	for i := len(f.children) - 1; i >= 0; i-- {
		_ = f.children[i].cmd.Process.Kill()
		<-f.children[i].done
	}
}
