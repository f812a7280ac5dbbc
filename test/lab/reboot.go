package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// rebootLimit is how long a machine may take to end its services and to come up again. systemd gives what does not end 90 s.
const rebootLimit = 8 * time.Minute

// Reboot lets a machine with systemd restart as a blade does, by systemctl, and returns when it is up with its router and client. Its disk stays;
// what ran beside it in the machine's memory is made anew.
func (l *Lab) Reboot(ctx context.Context, log io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, rebootLimit, fmt.Errorf("not back after %v", rebootLimit))
	defer cancel()
	u := &start{lab: l, options: Options{Name: l.Name, Log: log}, begin: time.Now()}
	if err := u.reopen(); err != nil {
		return fmt.Errorf("reboot lab %s: %w", l.Name, err)
	}
	if err := l.withCause(u.restart(ctx)); err != nil {
		return fmt.Errorf("reboot lab %s: %w", l.Name, err)
	}
	u.say("ready")
	return nil
}

// reopen reads what Up knew of a lab that runs.
func (u *start) reopen() error {
	l := u.lab
	if !l.alive() || l.read(fileSpec, &u.spec) != nil || l.read(fileRunning, &u.running) != nil {
		return l.why()
	}
	if !u.spec.Systemd {
		return errors.New("only a machine with systemd reboots: lab up --systemd")
	}
	fleet, _, err := loadFleet(u.spec.Fleet)
	if err != nil {
		return err
	}
	u.again, u.image = true, Image{Dir: filepath.Dir(u.spec.Root)}
	u.topology, err = makeTopology(fleet, len(u.spec.Blades))
	u.topology.Emulated = u.spec.Accel == "tcg"
	return err
}

// restart asks systemd for it. A reset ends the machine else, so that a panic does.
func (u *start) restart(ctx context.Context) error {
	was, err := u.bootID(ctx)
	if err != nil {
		return err
	}
	m, err := openMonitor(u.lab.path(fileControl))
	if err != nil {
		return err
	}
	defer m.conn.Close()
	if _, err := m.do("set-action", map[string]string{"reboot": "reset"}); err != nil {
		return err
	}
	if err := u.script(ctx, machine, "systemctl reboot", nil); err != nil && !errors.Is(err, errLost) {
		return err
	}
	u.say("systemd ends its services")
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		now, err := u.bootID(try)
		cancel()
		if err == nil && now != was {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; end of its console:\n%s", context.Cause(ctx), u.lab.tail(fileConsole))
		case <-time.After(100 * time.Millisecond):
		}
		if !u.lab.alive() {
			return u.lab.why()
		}
	}
	u.say("machine answers again")
	if _, err := m.do("set-action", map[string]string{"reboot": "shutdown"}); err != nil {
		return err
	}
	return u.settle(ctx)
}

// bootID differs from boot to boot (proc_sys_kernel(5), random/boot_id).
func (u *start) bootID(ctx context.Context) (string, error) {
	var out bytes.Buffer
	_, err := execAt(ctx, u.running.Port, u.spec.Token, Command{In: machine, Args: []string{"cat", "/proc/sys/kernel/random/boot_id"}, Stdout: &out})
	return strings.TrimSpace(out.String()), err
}
