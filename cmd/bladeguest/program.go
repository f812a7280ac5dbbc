package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/service"
)

// program is the service of a real server. It is init's own child, not the worker's, so that it outlives a worker that is started again.
// Only supervise touches it; a director has none, and a nil one does nothing.
type program struct {
	service.Spec
	stateFile string // where init says how it is

	allowed bool // the network is ready
	halting bool
	pid     int // 0: it does not run
	state   service.State
	started time.Time
	backoff time.Duration
	again   <-chan time.Time
}

// allow starts the service when the network is ready for the first time.
func (p *program) allow(log *slog.Logger) {
	if p == nil || p.allowed || p.halting {
		return
	}
	p.allowed, p.backoff = true, backoffMin
	p.start(log)
}

// due has a value when a service that has ended is to be started again.
func (p *program) due() <-chan time.Time {
	if p == nil {
		return nil
	}
	return p.again
}

func (p *program) start(log *slog.Logger) {
	p.again = nil
	if p.halting {
		return
	}
	pid, err := startProgram(p.Command)
	if err != nil {
		p.failed(log, err.Error())
		return
	}
	p.pid, p.started = pid, time.Now()
	p.state.Running = true
	p.tell(log)
	log.Info("service runs", "command", p.Command, "pid", p.pid)
}

// startProgram starts a service in a session of its own, with nothing to read and the console to write to. Reap collects it.
func startProgram(command []string) (pid int, err error) {
	if len(command) == 0 {
		return 0, errors.New("the image names no program")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	child, err := os.StartProcess(command[0], command, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
		Files: []*os.File{null, os.Stdout, os.Stderr},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, err
	}
	pid = child.Pid
	return pid, child.Release()
}

// ended takes note of a child that was collected: of what is left of the service when it was the service's own.
func (p *program) ended(log *slog.Logger, pid int, status unix.WaitStatus) {
	if p == nil || p.pid == 0 || pid != p.pid {
		return
	}
	_ = unix.Kill(-p.pid, unix.SIGKILL) // its children cannot serve without it, and hold its ports
	p.pid = 0
	how := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		how = "signal " + unix.SignalName(status.Signal())
	}
	if time.Since(p.started) > healthyFor {
		p.backoff = backoffMin
	}
	p.failed(log, how)
}

// failed plans the next start.
func (p *program) failed(log *slog.Logger, how string) {
	p.state.Running, p.state.Ended = false, how
	if !p.halting {
		p.state.Restarts++
		log.Error("service ended", "how", how, "again_in", p.backoff)
		p.again = time.After(p.backoff)
		p.backoff = min(p.backoff*2, backoffMax)
	}
	p.tell(log)
}

// halt asks the service to end, in its own way.
func (p *program) halt(log *slog.Logger) {
	if p == nil {
		return
	}
	p.halting, p.again = true, nil
	if p.pid == 0 {
		return
	}
	signal := unix.SIGTERM
	if s := unix.SignalNum(p.Halt); s != 0 {
		signal = s
	}
	log.Info("end the service", "signal", unix.SignalName(signal))
	_ = unix.Kill(p.pid, signal)
}

func (p *program) runs() bool { return p != nil && p.pid != 0 }

func (p *program) tell(log *slog.Logger) {
	if err := p.state.Save(p.stateFile); err != nil {
		log.Warn("the blade does not hear how the service is", "err", err)
	}
}
