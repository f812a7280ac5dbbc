package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher waits on one thread for the end of inits (a pidfd is readable then) and for changes of the driver's folder.
type watcher struct {
	nudge int // eventfd: the set of inits changed, or it is time to end
	dir   int // inotify

	mu    sync.Mutex
	inits map[int]int // pid to pidfd
	ended bool        // no more inits are taken
	gone  bool        // the descriptors are closed
}

// Events wakes when a container's init ends or a container's folder comes or goes.
func (d *Driver) Events(ctx context.Context, wake func()) error {
	if err := os.MkdirAll(d.Dir, 0o711); err != nil {
		return fmt.Errorf("watch containers: %w", err)
	}
	w, err := newWatcher(d.Dir)
	if err != nil {
		return fmt.Errorf("watch containers: %w", err)
	}
	d.mu.Lock()
	d.watch = w
	d.mu.Unlock()
	stop := context.AfterFunc(ctx, w.end)
	defer stop()
	wake() // what happened before the watch is only seen by looking
	err = w.run(wake)
	d.mu.Lock()
	d.watch = nil
	d.mu.Unlock()
	w.close()
	if err != nil {
		return fmt.Errorf("watch containers: %w", err)
	}
	return nil
}

// follow tells the watcher which inits live.
func (d *Driver) follow(pids []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watch != nil {
		d.watch.set(pids)
	}
}

func newWatcher(dir string) (*watcher, error) {
	nudge, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		unix.Close(nudge)
		return nil, err
	}
	w := &watcher{nudge: nudge, dir: in, inits: map[int]int{}}
	if _, err := unix.InotifyAddWatch(in, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watcher) set(pids []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	changed := false
	for _, pid := range pids {
		if _, known := w.inits[pid]; known {
			continue
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			w.inits[pid], changed = fd, true
		}
	}
	if changed {
		w.poke()
	}
}

func (w *watcher) poke() { _, _ = unix.Write(w.nudge, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if !w.gone {
		w.poke()
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended, w.gone = true, true
	for _, fd := range w.inits {
		unix.Close(fd)
	}
	unix.Close(w.nudge)
	unix.Close(w.dir)
}

func (w *watcher) run(wake func()) error {
	buffer := make([]byte, 4096)
	for {
		fds := []unix.PollFd{{Fd: int32(w.nudge), Events: unix.POLLIN}, {Fd: int32(w.dir), Events: unix.POLLIN}}
		w.mu.Lock()
		ended := w.ended
		var pids []int
		for pid, fd := range w.inits {
			pids = append(pids, pid)
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		w.mu.Unlock()
		if ended {
			return nil
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		happened := fds[1].Revents != 0
		for i, fd := range fds[:2] {
			for fd.Revents != 0 {
				if n, err := unix.Read(int(fd.Fd), buffer); err != nil || n < len(buffer) && i == 1 {
					break
				}
			}
		}
		w.mu.Lock()
		for i, fd := range fds[2:] {
			if fd.Revents != 0 {
				unix.Close(int(fd.Fd))
				delete(w.inits, pids[i])
				happened = true
			}
		}
		w.mu.Unlock()
		if happened {
			wake()
		}
	}
}
