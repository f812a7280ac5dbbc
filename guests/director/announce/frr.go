package announce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// frr is a daemon of FRR's.
type frr struct{ *daemon }

func (d frr) dir() string { return d.cfg.Run }

// evict ends an older daemon: it would hold the lock on its pid file for ever. Who holds the lock is the kernel's word, so no other process is met.
func (d frr) evict() error {
	f, err := os.OpenFile(d.path(".pid"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an older daemon: %w", err)
	}
	defer f.Close()
	for range 30 {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
			return fmt.Errorf("look for an older daemon: %w", err)
		}
		if lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
			return nil
		}
		d.cfg.Log.Warn("end an older routing daemon", "daemon", d.name, "pid", lock.Pid)
		_ = unix.Kill(int(lock.Pid), unix.SIGTERM)
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("an older daemon does not end")
}

// begin waits for zebra, whose socket goes with it.
func (d frr) begin(ctx context.Context) (end func()) {
	if d.name == zebra {
		return d.cfg.forgetZebra
	}
	waitFor(ctx, d.cfg.zebraSocket())
	return func() {}
}

func (d frr) command() (path string, args []string) {
	args = []string{
		"-f", d.path(".conf"), "-i", d.path(".pid"), "-z", d.cfg.zebraSocket(), "--vty_socket", d.cfg.Run,
		"-P", "0", "-u", d.cfg.User, "-g", d.cfg.User,
	}
	if d.name == "bfdd" {
		args = append(args, "--bfdctl", d.path(".sock"))
	}
	return filepath.Join(d.cfg.Programs, d.name), args
}

func (d frr) workers() []int { return nil }

func (d frr) answers(ctx context.Context, _ int) bool {
	_, err := ask(ctx, d.path(".vty"), "echo alive")
	return err == nil
}

// retell tells it of VIPs that come and go, by its terminal socket.
func (d frr) retell(ctx context.Context, after string) error {
	commands, ok := liveChange(d.file, after)
	if !ok {
		return nil
	}
	if err := tell(ctx, d.path(".vty"), commands); err != nil {
		d.cfg.Log.Warn("restart a routing daemon that does not take its new VIPs", "daemon", d.name, "err", err)
		return nil
	}
	owner, err := lookup(d.cfg.User)
	if err != nil {
		return err
	}
	if err := writeOwned(d.path(".conf"), after, owner); err != nil {
		return err
	}
	d.file = after
	d.cfg.Log.Info("told a routing daemon its VIPs", "daemon", d.name, "changes", len(commands)-3)
	return nil
}
