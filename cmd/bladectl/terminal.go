package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// inTerminal calls run with a pseudoterminal of its own as standard files and couples it with the one that this process has. A guest is
// never given the operator's terminal itself: it could type into it (TIOCSTI, ioctl_tty(2)). Keys come from keys, which is this process's
// standard input or reads it.
func inTerminal(keys io.Reader, run func(files [3]*os.File) (int, error)) (int, error) {
	master, slave, err := openPTY()
	if err != nil {
		return 0, err
	}
	defer master.Close()
	was, err := makeRaw(os.Stdin)
	if err != nil {
		slave.Close()
		return 0, err
	}
	defer func() { _ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, was) }()

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	go func() {
		for range resized {
			copySize(master)
		}
	}()
	copySize(master)

	go func() { _, _ = io.Copy(master, keys) }() // ends with this process
	shown := make(chan struct{})
	go func() {
		_, _ = io.Copy(os.Stdout, master) // until the last one who has the slave is gone
		close(shown)
	}()
	status, err := run([3]*os.File{slave, slave, slave})
	slave.Close()
	if err == nil {
		<-shown
	}
	return status, err
}

// openPTY makes a pseudoterminal, pty(7).
func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var peer uintptr
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed != nil {
			return
		}
		var errno unix.Errno
		if peer, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC); errno != 0 {
			failed = errno
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("make pseudoterminal: %w", err)
	}
	return master, os.NewFile(peer, "pseudoterminal"), nil
}

// makeRaw hands every key on as it is, to whom the keys are for, and returns what to set at the end.
func makeRaw(f *os.File) (*unix.Termios, error) {
	was, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read terminal: %w", err)
	}
	raw := *was
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set terminal: %w", err)
	}
	return was, nil
}

// copySize gives a pseudoterminal the size of the window that this process writes to.
func copySize(master *os.File) {
	if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size)
	}
}
