package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/test/bench/traffic"
)

// partVariable names, in the environment, what this program is when it started itself: a process that must have a core or a
// namespace of its own.
const partVariable = "BLADENET_BENCH_PART"

// parts are what this program can be beside itself.
func parts() map[string]func(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return map[string]func(ctx context.Context, args []string, stdout, stderr io.Writer) error{"answer": beServers, "check": beChecker}
}

// part is this program as one of its parts, in a namespace.
func part(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), partVariable+"="+name)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// pin keeps this process on one core, if there is a core of that number.
func pin(core int) error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &all); err != nil {
		return fmt.Errorf("pin to core %d: %w", core, err)
	}
	if !all.IsSet(core) {
		return nil
	}
	one.Set(core)
	// Of each thread that there is: later ones inherit it.
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("pin to core %d: %w", core, err)
	}
	for _, t := range tasks {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			return fmt.Errorf("pin to core %d: %w", core, err)
		}
		if err := unix.SchedSetaffinity(tid, &one); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin to core %d: %w", core, err)
		}
	}
	return nil
}

// checkedServers is a namespace for who checks and one with so many addresses of real servers in it, which are joined by a cable.
type checkedServers struct{ checker, servers *traffic.Namespace }

func newCheckedServers() (*checkedServers, error) {
	c := &checkedServers{}
	var err error
	if c.servers, err = traffic.NewNamespace(); err != nil {
		return nil, err
	}
	if c.checker, err = traffic.NewNamespace(); err != nil {
		c.Close()
		return nil, err
	}
	if err := c.join(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *checkedServers) join() error {
	if err := c.servers.Connect(traffic.Cable{Bridge: "br", Port: "p", To: c.checker, Interface: "eth1"}); err != nil {
		return err
	}
	if err := c.servers.Own("br", netip.MustParseAddr("10.99.0.2")); err != nil {
		return err
	}
	if err := c.servers.Own("lo", netip.MustParseAddr("10.97.0.1")); err != nil {
		return err
	}
	if err := c.checker.Own("eth1", netip.MustParseAddr("10.99.0.1")); err != nil {
		return err
	}
	for _, x := range []struct {
		in   *traffic.Namespace
		args []string
	}{
		{c.servers, []string{"route", "add", "10.99.0.1", "dev", "br"}},
		{c.servers, []string{"route", "add", "local", "10.98.0.0/16", "dev", "lo"}}, // every address of it is this host's
		{c.checker, []string{"route", "add", "10.99.0.2", "dev", "eth1"}},
		{c.checker, []string{"route", "add", "10.98.0.0/16", "via", "10.99.0.2"}},
	} {
		if _, err := x.in.Run("", "ip", x.args...); err != nil {
			return err
		}
	}
	return nil
}

// server is the address of one of the real servers.
func server(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 98, byte(i >> 8), byte(i)}) }

func (c *checkedServers) Close() {
	for _, n := range []*traffic.Namespace{c.checker, c.servers} {
		if n != nil {
			n.Close()
		}
	}
}
