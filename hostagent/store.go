package hostagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
)

// restore puts the revision in force and the list of stopped guests back on disk where somebody has taken them away: what a blade boots from is
// kept as the rest is. The caller holds passing.
func (a *Agent) restore(now wanted) {
	lost, err := a.revisions.Restore(now.revision)
	if err != nil && a.unkept == "" {
		a.log.Error("the revision in force is not on disk: a restart takes an older one, or the policy folder", "revision", now.revision.Number, "err", err)
	}
	missing := a.stopped.restore()
	if missing != nil && a.unkept == "" {
		a.log.Error("the guests that an operator stopped are not on disk: a restart starts them", "err", missing)
	}
	a.unkept = ""
	if bad := errors.Join(err, missing); bad != nil {
		a.unkept = bad.Error()
	}
	if lost && err == nil {
		a.log.Warn("applied", "subsystem", "store", "step", fmt.Sprintf("create revision %d", now.revision.Number))
		a.record(api.Entry{Kind: api.Repaired, Subsystem: "store", Verb: "create", Object: fmt.Sprintf("revision %d", now.revision.Number), Message: "somebody took it away"})
	}
}

// watchStore wakes the loop when the revision in force, or the folder that it is in, is taken away.
func (a *Agent) watchStore(ctx context.Context, wake func()) error {
	for ctx.Err() == nil {
		folder := filepath.Join(a.cfg.State, "revisions")
		inForce := func() string { return fmt.Sprintf("%d.json", a.wantedNow().revision.Number) }
		begun := func() {
			if _, err := os.Stat(filepath.Join(folder, inForce())); err != nil {
				wake() // it went before anybody watched
			}
		}
		err := watchFolder(ctx, folder, begun, func(name string) {
			if name == inForce() {
				wake()
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		wake() // the folder itself is gone; a pass makes it anew
		sleep(ctx, time.Second)
	}
	return nil
}

// watchFolder calls begun when it watches, then gone for each file that is taken out of a folder, until ctx ends or the folder is not there any more (inotify(7)).
func watchFolder(ctx context.Context, dir string, begun func(), gone func(name string)) error {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	defer context.AfterFunc(ctx, func() { events.Close() })()
	const self = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE|unix.IN_MOVED_FROM|self|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	begun()
	buf := make([]byte, 16<<10)
	for {
		n, err := events.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		// An event is a watch, a mask, a cookie and a length of four bytes each, and a name with that length.
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			mask, size := binary.NativeEndian.Uint32(rest[4:]), int(binary.NativeEndian.Uint32(rest[12:]))
			if mask&(self|unix.IN_IGNORED) != 0 {
				return nil
			}
			gone(strings.TrimRight(string(rest[unix.SizeofInotifyEvent:][:size]), "\x00"))
			rest = rest[unix.SizeofInotifyEvent+size:]
		}
	}
}
