package traffic

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of its own, which ends with Close.
type Namespace struct{ fd int }

// NewNamespace makes an empty namespace.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{fd: -1}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		// Links that greet their neighbours would be counted with the packets.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644); err != nil {
			return fmt.Errorf("silence links: %w", err)
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		n.fd = fd
		return err
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return unix.Close(n.fd) }

// Path names the namespace for this process.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.fd) }

// Do calls f on a thread inside. Sockets that it opens and programs that it starts stay there.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		return f()
	})
}

// In calls f on a thread inside the namespace that a file names. Sockets that it opens and programs that it starts stay there.
func In(path string, f func() error) error {
	return onThread(func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return f()
	})
}

// onThread calls f on a thread that is thrown away, with the namespace it is in.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Run runs a program inside, with an input, and returns its output.
func (n *Namespace) Run(input string, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := n.Do(func() error {
		c := exec.Command(name, args...)
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &stdout, &stderr
		return c.Run()
	})
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Set writes a file below /proc/sys/net of the namespace.
func (n *Namespace) Set(key, value string) error {
	return n.Do(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644) })
}

// CallIPTables says whether bridged packets pass the ip families' hooks (br_netfilter). Without that module there is nothing
// to switch off.
func (n *Namespace) CallIPTables(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		err := n.Set("bridge/bridge-nf-call-"+name, value)
		if err != nil && (on || !errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("set br_netfilter: %w", err)
		}
	}
	return nil
}
