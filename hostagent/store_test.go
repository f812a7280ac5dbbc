package hostagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
)

// TestTheRevisionInForceIsPutBack takes away the file, then the folder, of an agent that runs.
func TestTheRevisionInForceIsPutBack(t *testing.T) {
	a, _, dir := firstRevision(t, &world{})
	a.storeLost = a.watchStore
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	folder := filepath.Join(dir, "revisions")
	before, err := os.ReadFile(filepath.Join(folder, "1.json"))
	if err != nil {
		t.Fatal(err)
	}
	for what, take := range map[string]func() error{
		"the file": func() error { return os.Remove(filepath.Join(folder, "1.json")) },
		"the folder": func() error {
			if err := os.RemoveAll(folder); !errors.Is(err, unix.ENOTEMPTY) { // the agent may put the file back in between
				return err
			}
			return nil
		},
		"the folder, to aside": func() error {
			return os.Rename(folder, filepath.Join(dir, fmt.Sprint("aside-", time.Now().UnixNano())))
		},
	} {
		if err := take(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			now, err := os.ReadFile(filepath.Join(folder, "1.json"))
			if err == nil && string(now) == string(before) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not put back: %v", what, err)
			}
		}
	}
	entries, _ := a.Events(0)
	if !slices.ContainsFunc(entries, func(e api.Entry) bool { return e.Kind == api.Repaired && e.Object == "revision 1" }) {
		t.Errorf("nothing is told of it: %v", entries)
	}
}

// TestStoppedGuestsArePutBack takes the list of stopped guests away: an agent's next start would start them.
func TestStoppedGuestsArePutBack(t *testing.T) {
	a, _, dir := firstRevision(t, &world{})
	if err := a.stopped.change("www-1", &stop{Drained: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "stopped.json")); err != nil {
		t.Fatal(err)
	}
	a.keep(t.Context())
	again, err := openStopped(filepath.Join(dir, "stopped.json"))
	if how, ok := again.get("www-1"); err != nil || !ok || !how.Drained {
		t.Errorf("the list on disk has %v, %v, %v", how, ok, err)
	}
}

// A store that cannot be written is said once, and again after it could.
func TestAStoreThatCannotBeWrittenIsSaidOnce(t *testing.T) {
	a, _, _ := firstRevision(t, &world{})
	var log bytes.Buffer
	a.log = slog.New(slog.NewTextHandler(&log, nil))
	full := &fullStore{history: a.revisions, err: errors.New("no space left on device")}
	a.revisions = full
	for range 3 {
		a.keep(t.Context())
	}
	if n := strings.Count(log.String(), "no space left"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, log.String())
	}
	full.err = nil
	a.keep(t.Context())
	full.err = errors.New("no space left on device")
	a.keep(t.Context())
	if n := strings.Count(log.String(), "no space left"); n != 2 {
		t.Errorf("said %d times, want twice:\n%s", n, log.String())
	}
}

// fullStore is a store whose file is gone, on a disk that may have no room.
type fullStore struct {
	history
	err error
}

func (s *fullStore) Restore(revision.Revision) (bool, error) { return true, s.err }
