package announce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times of one daemon's life.
const (
	restartMin  = 100 * time.Millisecond
	restartMax  = 30 * time.Second
	steadyAfter = time.Minute     // after so long a run the next restart is soon again
	stopTimeout = 2 * time.Second // for a daemon to tell its neighbours that it goes
)

// daemon is one program and its restarts.
type daemon struct {
	name   string
	file   string // its configuration
	cfg    Config
	group  int    // process group to join
	fell   func() // called when it has ended by itself or was hung; nil: nobody wants to know
	cancel context.CancelFunc
	done   chan struct{}

	alive    atomic.Bool
	restarts atomic.Int64
	renewal  atomic.Pointer[context.CancelFunc] // ends the process that runs, not the daemon
}

// errRenewed is why a process was ended that is to be started again.
var errRenewed = errors.New("started anew with zebra")

// keep runs the daemon again and again until ctx ends.
func (d *daemon) keep(ctx context.Context) {
	defer close(d.done)
	wait := restartMin
	for {
		began := time.Now()
		err := d.once(ctx)
		if ctx.Err() != nil {
			return
		}
		d.restarts.Add(1)
		if errors.Is(err, errRenewed) {
			d.cfg.Log.Warn("routing daemon ended", "daemon", d.name, "err", err)
			continue
		}
		if d.fell != nil {
			d.fell()
		}
		if time.Since(began) > steadyAfter {
			wait = restartMin
		}
		d.cfg.Log.Error("routing daemon ended", "daemon", d.name, "err", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(wait*2, restartMax)
	}
}

// renew ends the process that runs now, politely, and has it started again.
func (d *daemon) renew() {
	if end := d.renewal.Load(); end != nil {
		(*end)()
	}
}

// once runs the daemon until it ends, hangs, or is renewed.
func (d *daemon) once(ctx context.Context) error {
	program := d.program()
	if err := program.evict(); err != nil {
		return err
	}
	run, end := context.WithCancel(ctx)
	defer end()
	d.renewal.Store(&end)
	defer program.begin(run)()
	path, args := program.command()
	cmd := exec.CommandContext(run, path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + program.dir()}
	cmd.Dir = program.dir()
	said := &lineLog{log: d.cfg.Log, daemon: d.name, skip: d.chatter()}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: d.group}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		return err
	}
	d.alive.Store(true)
	defer d.alive.Store(false)
	hung := make(chan error, 1)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if err := d.watch(run, cmd.Process.Pid); err != nil {
			// One that can still be woken withdraws what it announces on its way out; stopTimeout later it is killed.
			hung <- err
			end()
			_ = cmd.Process.Signal(syscall.SIGCONT)
			for _, worker := range program.workers() {
				_ = unix.Kill(worker, unix.SIGCONT)
			}
		}
	}()
	err := cmd.Wait()
	renewed := run.Err() != nil
	end()
	<-watched
	select {
	case why := <-hung:
		return why
	default:
	}
	switch {
	case renewed:
		return errRenewed
	case err == nil:
		return errors.New("exit status 0")
	}
	return err
}

// program is what FRR's daemons and keepalived do each in its own way.
type program interface {
	// dir is where its files are.
	dir() string
	// evict ends one that outlived both its supervisor and its guard.
	evict() error
	// begin does what must be before a process starts, and returns what must be after it has ended.
	begin(ctx context.Context) (end func())
	command() (path string, args []string)
	// workers are the processes beside the one that was started.
	workers() []int
	// answers asks once for a sign of life.
	answers(ctx context.Context, pid int) bool
	// retell tells a process that runs of another configuration. What it does not take is no error: it is restarted by who compares
	// configurations next.
	retell(ctx context.Context, after string) error
}

func (d *daemon) program() program {
	if d.name == keepalived {
		return vrrp{d}
	}
	return frr{d}
}

func (d *daemon) path(suffix string) string { return filepath.Join(d.program().dir(), d.name+suffix) }

// owner is whom the daemons run as after they have what only root gets.
type owner struct{ uid, gid int }

func lookup(name string) (owner, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return owner{}, fmt.Errorf("look up the routing daemons' user: %w", err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return owner{}, fmt.Errorf("look up the routing daemons' user %s: %w", name, err)
	}
	return owner{uid, gid}, nil
}

func prepareDir(dir string, o owner) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("prepare routing daemons: %w", err)
	}
	if err := os.Chown(dir, o.uid, o.gid); err != nil {
		return fmt.Errorf("prepare routing daemons: %w", err)
	}
	return nil
}

// writeOwned writes a configuration that the daemons may read and not change.
func writeOwned(path, text string, o owner) error {
	// The directory is the daemons' own: what lies at the path is replaced, never written through.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write configuration: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	defer f.Close()
	if err := f.Chown(0, o.gid); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
