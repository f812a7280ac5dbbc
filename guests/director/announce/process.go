package announce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times of one daemon's life.
const (
	restartMin  = 500 * time.Millisecond
	restartMax  = 30 * time.Second
	steadyAfter = time.Minute     // after so long a run the next restart is soon again
	stopTimeout = 2 * time.Second // for a daemon to tell its neighbours that it goes
)

// capabilities that the daemons ask for: raw sockets and privileged ports, interfaces, and the supplementary groups that each
// sets for itself. Zebra wants SYS_ADMIN for namespaces.
var capabilities = []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN, unix.CAP_SETGID, unix.CAP_SETUID}

// daemon is one program and its restarts.
type daemon struct {
	name   string
	file   string // its configuration
	cfg    Config
	owner  *syscall.Credential
	cancel context.CancelFunc
	done   chan struct{}

	alive    atomic.Bool
	restarts atomic.Int64
}

// keep runs the daemon again and again until ctx ends.
//
// The kernel sends a child its parent's death signal when the thread that forked it ends, so the thread stays ours and ends
// with this goroutine. The signal would be lost if the daemon changed its user by itself; it is started as that user instead.
func (d *daemon) keep(ctx context.Context) {
	defer close(d.done)
	runtime.LockOSThread()
	wait := restartMin
	for {
		began := time.Now()
		err := d.once(ctx)
		if ctx.Err() != nil {
			return
		}
		d.restarts.Add(1)
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

func (d *daemon) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(d.cfg.Programs, d.name), d.args()...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = d.cfg.Run
	said := &lineLog{log: d.cfg.Log, daemon: d.name}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Credential: d.owner, AmbientCaps: capabilities}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		return err
	}
	d.alive.Store(true)
	defer d.alive.Store(false)
	err := cmd.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

func (d *daemon) args() []string {
	run := func(suffix string) string { return filepath.Join(d.cfg.Run, d.name+suffix) }
	args := []string{
		"-f", run(".conf"), "-i", run(".pid"), "-z", d.cfg.zebraSocket(), "--vty_socket", d.cfg.Run,
		"-P", "0", "-u", d.cfg.User, "-g", d.cfg.User,
	}
	if d.name == "bfdd" {
		args = append(args, "--bfdctl", run(".sock"))
	}
	return args
}

// lookup finds the daemons' user, its group and the group that may open their terminals, if there is one.
func lookup(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("look up the routing daemons' user: %w", err)
	}
	c := &syscall.Credential{}
	for field, text := range map[*uint32]string{&c.Uid: u.Uid, &c.Gid: u.Gid} {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up the routing daemons' user %s: %w", name, err)
		}
		*field = uint32(n)
	}
	if g, err := user.LookupGroup("frrvty"); err == nil {
		if n, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			c.Groups = []uint32{uint32(n)}
		}
	}
	return c, nil
}

func prepareDir(dir string, owner *syscall.Credential) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("prepare routing daemons: %w", err)
	}
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("prepare routing daemons: %w", err)
	}
	return nil
}

// writeOwned writes a configuration that the daemons may read and not change.
func writeOwned(path, text string, owner *syscall.Credential) error {
	// The directory is the daemons' own: what lies at the path is replaced, never written through.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write configuration: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	defer f.Close()
	if err := f.Chown(0, int(owner.Gid)); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
