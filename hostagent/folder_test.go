package hostagent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
)

// errDied stands for SIGKILL: nothing after it is done.
var errDied = errors.New("died")

// dies runs an operation until it has reported n times, and says whether it came so far.
func dies(t *testing.T, n int, do func(report func(api.Event)) error) (died bool) {
	t.Helper()
	defer func() {
		switch e := recover(); e {
		case nil:
		case errDied:
			died = true
		default:
			panic(e)
		}
	}()
	said := 0
	if err := do(func(api.Event) {
		if said++; said == n {
			panic(errDied)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return false
}

// server asks for a real server.
func server(name policy.GuestName) api.SpawnRequest {
	return api.SpawnRequest{Role: policy.RoleRealServer, Names: []policy.GuestName{name}, Services: []policy.ServiceName{"www"}, Image: "web"}
}

// settledAs looks whether folder and revision are one after a new agent took over, with or without a guest, and nothing is left over.
func settledAs(t *testing.T, a *Agent, dir, when string) (guest bool) {
	t.Helper()
	if err := a.finishChange(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	if why := a.pending(a.wantedNow()); why != "" {
		t.Errorf("%s: %s", when, why)
	}
	if _, err := os.Stat(filepath.Join(dir, "change.json")); !os.IsNotExist(err) {
		t.Errorf("%s: the note of the change is left: %v", when, err)
	}
	_, err := a.wantedGuest("www-1")
	if _, held := a.stopped.get("www-1"); held && err != nil {
		t.Errorf("%s: the guest is gone, and that it was stopped is not", when)
	}
	return err == nil
}

// TestAnAgentThatDiesInASpawnOrDestroy leaves the policy folder and the revision in one mind: both have the guest, or neither has.
func TestAnAgentThatDiesInASpawnOrDestroy(t *testing.T) {
	w := &world{}
	a, _, dir := firstRevision(t, w)
	var seen [2][2]int // by operation: how often the guest was there afterwards
	for n := 1; ; n++ {
		died := dies(t, n, func(report func(api.Event)) error { return a.Spawn(t.Context(), server("www-1"), report) })
		a = trialAgent(t, dir, w)
		there := settledAs(t, a, dir, "spawn")
		seen[0][btoi(there)]++
		if !there {
			if err := a.Spawn(t.Context(), server("www-1"), silent); err != nil {
				t.Fatalf("spawn again after a death at event %d: %v", n, err)
			}
		}
		if err := a.stopped.change("www-1", &stop{}); err != nil {
			t.Fatal(err)
		}
		destroy := api.DestroyRequest{Names: []policy.GuestName{"www-1"}}
		alsoDied := dies(t, n, func(report func(api.Event)) error { return a.Destroy(t.Context(), destroy, report) })
		a = trialAgent(t, dir, w)
		there = settledAs(t, a, dir, "destroy")
		seen[1][btoi(there)]++
		if there {
			if err := a.Destroy(t.Context(), destroy, silent); err != nil {
				t.Fatalf("destroy again after a death at event %d: %v", n, err)
			}
		}
		if !died && !alsoDied {
			break
		}
	}
	for i, what := range []string{"spawn", "destroy"} {
		if seen[i][0] == 0 || seen[i][1] == 0 {
			t.Errorf("%s never died early, or never late: %v", what, seen[i])
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestAFileWrittenSinceStays: what an operator wrote into the folder after the agent died is the operator's.
func TestAFileWrittenSinceStays(t *testing.T) {
	w := &world{}
	a, _, dir := firstRevision(t, w)
	if !dies(t, 1, func(report func(api.Event)) error { return a.Spawn(t.Context(), server("www-1"), report) }) {
		t.Fatal("the spawn ended")
	}
	entry := filepath.Join(dir, "policy", policy.GuestFile("www-1"))
	if err := os.WriteFile(entry, []byte("# mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a = trialAgent(t, dir, w)
	if err := a.finishChange(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(entry); err != nil || string(text) != "# mine\n" {
		t.Errorf("the operator's file: %q, %v", text, err)
	}
}

// TestHalfWrittenFilesAreSwept: a kill within the writing of a file leaves its other half.
func TestHalfWrittenFilesAreSwept(t *testing.T) {
	_, w, dir := firstRevision(t, &world{})
	for _, folder := range []string{"", "policy", "revisions"} {
		if err := os.WriteFile(filepath.Join(dir, folder, ".change.json.bladenet-new-7"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trialAgent(t, dir, w)
	for _, folder := range []string{"", "policy", "revisions"} {
		if left, err := filepath.Glob(filepath.Join(dir, folder, ".*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// TestARevisionThatCannotBeSavedLeavesTheFolder as it was.
func TestARevisionThatCannotBeSavedLeavesTheFolder(t *testing.T) {
	w := &world{}
	a, _, dir := firstRevision(t, w)
	a.revisions = fullHistory{a.revisions}
	if err := a.Spawn(t.Context(), server("www-1"), silent); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("spawn: %v, want that there is no space", err)
	}
	if settledAs(t, trialAgent(t, dir, w), dir, "no space") {
		t.Error("the guest is there")
	}
}

// TestTwoSpawnsOfOneName: one wins, the other is told why not, and takes nothing from the first.
func TestTwoSpawnsOfOneName(t *testing.T) {
	w := &world{}
	a, _, dir := firstRevision(t, w)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() { errs[i] = a.Spawn(t.Context(), server("www-1"), silent) })
	}
	wg.Wait()
	lost := errs[0]
	if lost == nil {
		lost = errs[1]
	}
	if (errs[0] == nil) == (errs[1] == nil) || !strings.Contains(lost.Error(), "www-1: there is a guest of that name") {
		t.Errorf("two spawns at once: %v", errs)
	}
	if !settledAs(t, trialAgent(t, dir, w), dir, "two spawns") {
		t.Error("the winner's guest is not there")
	}
}

// TestAGuestThatIsTakenAwayIsNotWaitedFor: a destroy ends the spawn that waits for that guest, and the other guests of it are undone.
func TestAGuestThatIsTakenAwayIsNotWaitedFor(t *testing.T) {
	w := &world{}
	a, _, dir := firstRevision(t, w)
	silentDirectors(t, a)
	waiting := make(chan struct{})
	var once sync.Once
	spawned := make(chan error)
	go func() {
		r := api.SpawnRequest{Role: policy.RoleDirector, Names: []policy.GuestName{"d-1", "d-2"}, Site: "lombarderie"}
		spawned <- a.Spawn(t.Context(), r, func(e api.Event) {
			if strings.HasPrefix(e.Message, "waiting") {
				once.Do(func() { close(waiting) })
			}
		})
	}()
	select {
	case <-waiting:
	case err := <-spawned:
		t.Fatalf("the spawn did not wait: %v", err)
	}
	if err := a.Destroy(t.Context(), api.DestroyRequest{Names: []policy.GuestName{"d-1"}}, silent); err != nil {
		t.Fatal(err)
	}
	if err := <-spawned; !errors.Is(err, errTakenAway) {
		t.Errorf("spawn: %v", err)
	}
	if left := a.wantedNow().blade.Guests; len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	settledAs(t, trialAgent(t, dir, w), dir, "taken away")
}

// TestADirectorWhoseHelperNeverSaysHello is given up after the limit with what was seen, and undone unless it is to be kept.
func TestADirectorWhoseHelperNeverSaysHello(t *testing.T) {
	for _, keep := range []bool{false, true} {
		w := &world{}
		a, _, dir := firstRevision(t, w)
		silentDirectors(t, a)
		a.rotateFor = 300 * time.Millisecond
		var said []string
		r := api.SpawnRequest{Role: policy.RoleDirector, Names: []policy.GuestName{"d-1"}, Site: "lombarderie", Keep: keep}
		err := a.Spawn(t.Context(), r, func(e api.Event) { said = append(said, e.Message) })
		if err == nil || !strings.Contains(err.Error(), "d-1: still waiting after") || !strings.Contains(err.Error(), "helper") || strings.Contains(err.Error(), "undone") == keep {
			t.Errorf("keep %t: spawn: %v", keep, err)
		}
		if text := strings.Join(said, "\n"); !strings.Contains(text, "waiting: its helper does not answer yet") {
			t.Errorf("keep %t: it was told\n%s", keep, text)
		}
		if left := len(a.wantedNow().blade.Guests); left != btoi(keep) {
			t.Errorf("keep %t: %d guests are left", keep, left)
		}
		settledAs(t, trialAgent(t, dir, w), dir, "no hello")
	}
}

// fullHistory is on a disk without room.
type fullHistory struct{ history }

func (fullHistory) Save(revision.Revision) (revision.Revision, error) {
	return revision.Revision{}, unix.ENOSPC
}

// silentDirectors has an agent speak with directors that take a connection and never say anything.
func silentDirectors(t *testing.T, a *Agent) {
	t.Helper()
	a.order = append(a.order, stage{"director", a.tellDirectors})
	a.helpers.dial = func(ctx context.Context, _ uint32) (*channel.Client, error) {
		here, there := net.Pipe()
		t.Cleanup(func() { here.Close(); there.Close() })
		go func() { _, _ = io.Copy(io.Discard, there) }()
		return channel.NewClient(ctx, here, "test")
	}
}
