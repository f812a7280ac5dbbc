package main

import (
	"bytes"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/director/announce"
)

// Times of the supervision of the worker.
const (
	beatEvery   = 500 * time.Millisecond // how often the worker beats, and how often init looks
	beatsMissed = 40                     // looks without a beat after which the worker counts as hung
	beatsFrozen = 2                      // the same for one that somebody stopped
	stopTimeout = 8 * time.Second        // for the worker to withdraw, and a service to end, when they are told to
	backoffMin  = 250 * time.Millisecond
	backoffMax  = 10 * time.Second
	healthyFor  = time.Minute // after so long a run the next restart is at once again
)

// worker is the running child. Only supervise touches it.
type worker struct {
	pid     int
	started time.Time
	beats   chan struct{} // one value at most: there was a beat since the last look
	ready   chan struct{} // one value at most: the network is ready for the service
	missed  int
}

// supervise keeps the worker alive, and the service of a real server (nil in a director) from when the worker says that its network is
// ready. It collects every orphan, until somebody wants the machine to end. It returns exitPowerOff or exitReboot.
//
// Looks are counted, not measured: a guest that its host paused, or starved, finds one look to be late, not the worker hung.
func supervise(log *slog.Logger, args []string, svc *program, signals <-chan os.Signal, button <-chan struct{}) int {
	look := time.NewTicker(beatEvery)
	defer look.Stop()
	var w *worker
	var again <-chan time.Time
	var deadline <-chan time.Time
	backoff, ending := backoffMin, 0
	end := func(how int) {
		if ending == 0 {
			ending, deadline = how, time.After(stopTimeout)
			svc.halt(log)
		}
		if w != nil {
			_ = unix.Kill(w.pid, unix.SIGTERM)
		}
	}
	start := func() {
		var err error
		if w, err = startWorker(args); err != nil {
			log.Error("start worker", "err", err)
			again = time.After(backoffMax)
		}
	}
	start()
	for {
		select {
		case <-again:
			again = nil
			start()
		case <-deadline:
			return ending
		case <-button:
			log.Info("power button")
			end(exitPowerOff)
		case <-look.C:
			w.look(log)
		case <-w.isReady():
			svc.allow(log)
		case <-svc.due():
			svc.start(log)
		case s := <-signals:
			switch s {
			case unix.SIGTERM, unix.SIGPWR:
				end(exitPowerOff)
			case unix.SIGINT:
				end(exitReboot)
			}
		}
		// Signals coalesce, so children are collected after every event, not one for each SIGCHLD.
		if status, died := reap(log, w, svc); died {
			if how := status.ExitStatus(); how == exitPowerOff || how == exitReboot {
				w = nil
				end(how)
			}
			if ending == 0 {
				if time.Since(w.started) > healthyFor {
					backoff = backoffMin
				}
				log.Error("worker ended", "exit", status.ExitStatus(), "signal", status.Signal(), "again_in", backoff)
				again = time.After(backoff)
				backoff = min(backoff*2, backoffMax)
			}
			w = nil
		}
		if w == nil && ending != 0 && !svc.runs() {
			return ending
		}
	}
}

// startWorker starts this program again, in a session of its own, with a pipe to beat on. It is not waited for here: reap
// collects it like every other child.
func startWorker(args []string) (*worker, error) {
	r, wr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer wr.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		r.Close()
		return nil, err
	}
	defer null.Close()
	argv := append([]string{"bladeguest", "--beat", "3", "--machine"}, args...)
	p, err := os.StartProcess("/proc/self/exe", argv, &os.ProcAttr{
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
		Files: []*os.File{null, os.Stdout, os.Stderr, wr},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		r.Close()
		return nil, err
	}
	w := &worker{pid: p.Pid, started: time.Now(), beats: make(chan struct{}, 1), ready: make(chan struct{}, 1)}
	_ = p.Release()
	go w.listen(r)
	return w, nil
}

func (w *worker) listen(r *os.File) {
	defer r.Close()
	buf := make([]byte, 64)
	for {
		n, err := r.Read(buf)
		if n == 0 || err != nil {
			return
		}
		tell(w.beats)
		if bytes.IndexByte(buf[:n], beatReady) >= 0 {
			tell(w.ready)
		}
	}
}

func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// isReady has a value when the worker has said that the network is ready. Without a worker it has none.
func (w *worker) isReady() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.ready
}

// look kills a worker that missed too many beats. SIGKILL also ends one that was stopped. One that runs is given long: on a busy
// machine the routing daemons' start alone can keep it from the processor for seconds.
func (w *worker) look(log *slog.Logger) {
	if w == nil {
		return
	}
	select {
	case <-w.beats:
		w.missed = 0
		return
	default:
		w.missed++
	}
	if w.missed == beatsMissed || w.missed >= beatsFrozen && announce.Stopped(w.pid) {
		log.Error("worker hangs", "missed", w.missed)
		_ = unix.Kill(w.pid, unix.SIGKILL)
	}
}

// reap collects every child that ended, and says how the worker ended if it was among them. What is left of its routing daemons ends
// with it, even if their guard does not see to it; the worker of a real server has no children.
func reap(log *slog.Logger, w *worker, svc *program) (unix.WaitStatus, bool) {
	var status, of unix.WaitStatus
	died := false
	for {
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return of, died
		}
		svc.ended(log, pid, status)
		if w != nil && pid == w.pid {
			of, died = status, true
			if svc == nil {
				endOrphans()
			}
		}
	}
}

// endOrphans tells everything that is left in init's process namespace to end. All of it is the worker's.
func endOrphans() {
	if os.Getpid() != 1 {
		return
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	_ = unix.Kill(-1, unix.SIGCONT) // one that is stopped would hear of it when somebody wakes it
}
