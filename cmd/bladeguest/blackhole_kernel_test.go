//go:build kernel

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/router"
)

// TestKernelNoBlackHole runs init in a director's network, with a router that hears it, and kills and stops the worker: its VIPs must be gone
// from the router, and come back with the next worker. Process 1 itself takes neither signal from inside the director. One real server is
// enough for the VIPs.
func TestKernelNoBlackHole(t *testing.T) {
	s := newSite(t)
	for _, family := range []string{"-4", "-6"} {
		s.ip(family, "-n", s.names["user"], "route", "flush", "proto", "boot")
	}
	s.start("rs1", "server", "rs1")
	openUp(t, s.dir)
	link := router.Link{Interface: "front", Router4: "10.0.0.1"}
	link.Start(t, s.names["user"], filepath.Join(s.dir, "router"), "ospf")
	init := s.startInit()
	state := s.state()
	state.Balancer.Announce = policy.Announce{RouterID: state.Inside.Interfaces[0].Addresses[0].Addr(), OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}}
	if _, err := s.dial().Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	vips := []string{vip6, vip4}
	routes := func() []string { return router.Routes(t, s.names["user"], "ospf") }
	s.until(time.Minute, "VIPs at the router", func() bool { return slices.Equal(routes(), vips) })
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		before := s.pid(init)
		s.inDirector(init, "kill", "-"+strconv.Itoa(int(signal)), "1")
		worker := workerOf(t, init.Process.Pid)
		if err := syscall.Kill(worker, signal); err != nil {
			t.Fatal(err)
		}
		gone := s.until(20*time.Second, "VIPs gone", func() bool { return len(routes()) == 0 })
		back := s.until(time.Minute, "VIPs back", func() bool { return slices.Equal(routes(), vips) })
		if now := workerOf(t, init.Process.Pid); now == worker || s.pid(init) != before {
			t.Errorf("after %s: worker %d, was %d; init %d, was %d", signal, now, worker, s.pid(init), before)
		}
		t.Logf("%s of the worker: VIPs gone after %.1f s, back %.1f s later", signal, gone.Seconds(), back.Seconds())
	}
}

// startInit runs bladeguest as the first process of the director.
func (s *site) startInit() *exec.Cmd {
	s.t.Helper()
	args := []string{"netns", "exec", s.names["dir"], "unshare", "-pfm", "--mount-proc", "--kill-child", os.Args[0]}
	cmd := exec.Command("ip", append(args, "--state", filepath.Join(s.dir, "state.json"), "--listen", "unix:"+s.socket(), "--run", s.dir)...)
	cmd.Env = append(os.Environ(), "BLADEGUEST_TEST_PART=init")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { end(cmd) })
	return cmd
}

// pid is that of the director's first process, outside of it; its parent is unshare.
func (s *site) pid(unshare *exec.Cmd) int {
	s.t.Helper()
	children := childrenOf(s.t, unshare.Process.Pid)
	if len(children) != 1 {
		s.t.Fatalf("children of unshare: %v", children)
	}
	return children[0]
}

// inDirector runs a program among the director's processes.
func (s *site) inDirector(unshare *exec.Cmd, args ...string) {
	s.t.Helper()
	s.command("nsenter", append([]string{"-t", strconv.Itoa(s.pid(unshare)), "-p", "-m", "--"}, args...)...)
}

// TestKernelNoFloatingVIPLeft does the same for a director that announces by VRRP: its kernel answers for the VIPs as long as they are on eth0, and
// so they must not stay there.
func TestKernelNoFloatingVIPLeft(t *testing.T) {
	s := newSite(t)
	s.start("rs1", "server", "rs1")
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	init := s.startInit()
	state := s.state()
	state.Balancer.Announce = policy.Announce{RouterID: state.Inside.Interfaces[0].Addresses[0].Addr(), VRRP: &policy.VRRP{ID: 40, Priority: 100, Interval: 200 * time.Millisecond}}
	for _, v := range state.Inside.VIPs {
		state.Inside.Floating = append(state.Inside.Floating, v.Address)
	}
	if _, err := s.dial().Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	floating := func() (n int) {
		list := s.ip("-n", s.names["dir"], "-o", "addr", "show", "dev", "eth0")
		for _, vip := range []string{vip4 + "/32", vip6 + "/128"} {
			if strings.Contains(list, " "+vip+" ") {
				n++
			}
		}
		return n
	}
	s.until(time.Minute, "VIPs on eth0", func() bool { return floating() == 2 })
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		worker := workerOf(t, init.Process.Pid)
		if err := syscall.Kill(worker, signal); err != nil {
			t.Fatal(err)
		}
		gone := s.until(20*time.Second, "VIPs gone", func() bool { return floating() == 0 })
		back := s.until(time.Minute, "VIPs back", func() bool { return floating() == 2 })
		t.Logf("%s of the worker: VIPs gone after %.1f s, back %.1f s later", signal, gone.Seconds(), back.Seconds())
	}
	time.Sleep(5 * time.Second)
	if floating() != 2 {
		t.Error("the helper takes away what VRRP put there")
	}
}
