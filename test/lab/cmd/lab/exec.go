package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/test/lab"
	"github.com/bladenet/bladenet/test/lab/wire"
)

func execute(ctx context.Context, env environment, args []string) error {
	set, name := flags(env, "exec")
	in := set.String("in", "", "blade, router, client, or a guest")
	dir := set.String("dir", "", "working folder (default /root)")
	if err := parse(set, args); err != nil {
		return err
	}
	if set.NArg() == 0 {
		return fmt.Errorf("exec needs a command: %w", errUsage)
	}
	c := lab.Command{In: *in, Dir: *dir, Args: set.Args(), Stdin: env.stdin, Stdout: env.stdout, Stderr: env.stderr}
	return do(ctx, env, *name, c)
}

// do runs a command and makes its status ours.
func do(ctx context.Context, env environment, name string, c lab.Command) error {
	l, err := lab.Open(name)
	if err != nil {
		return err
	}
	code, err := l.Exec(ctx, c)
	if err != nil {
		fmt.Fprintln(env.stderr, "lab:", err)
	}
	if code != 0 {
		return status(code)
	}
	return nil
}

// shell gives a login shell on the caller's terminal.
func shell(ctx context.Context, env environment, args []string) error {
	set, name := flags(env, "shell")
	in := set.String("in", "", "blade, router, client, or a guest")
	if err := parse(set, args); err != nil {
		return err
	}
	command := set.Args()
	if len(command) == 0 {
		command = []string{"/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l || exec /bin/sh -l"}
	}
	size, err := terminalSize(env.stdin)
	if err != nil {
		return fmt.Errorf("open shell: standard input is no terminal (%w); use lab exec", err)
	}
	restore, err := makeRaw(env.stdin)
	if err != nil {
		return fmt.Errorf("open shell: %w", err)
	}
	defer restore()
	c := lab.Command{In: *in, Args: command, Stdin: env.stdin, Stdout: env.stdout, Stderr: env.stderr, Size: &size, Resizes: watchSize(ctx, env.stdin)}
	if term := os.Getenv("TERM"); term != "" {
		c.Env = []string{"TERM=" + term}
	}
	return do(ctx, env, *name, c)
}

func terminalSize(f *os.File) (wire.Size, error) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return wire.Size{}, err
	}
	return wire.Size{Rows: size.Row, Columns: size.Col}, nil
}

// watchSize sends the terminal's size each time it changes.
func watchSize(ctx context.Context, f *os.File) <-chan wire.Size {
	sizes := make(chan wire.Size)
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	go func() {
		for {
			select {
			case <-changes:
				if size, err := terminalSize(f); err == nil {
					select {
					case sizes <- size:
					case <-ctx.Done():
					}
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return sizes
}

// makeRaw passes every key to the machine's terminal, as cfmakeraw(3) does, and returns what puts things back.
func makeRaw(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}
