//go:build kernel

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/hostagent"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// spawn makes a real server, which must run.
func spawn(t *testing.T, agent *hostagent.Agent, name policy.GuestName) {
	t.Helper()
	if err := agent.Spawn(t.Context(), server(name), silent); err != nil {
		t.Fatal(err)
	}
	if !up(t, agent, name) {
		t.Fatalf("%s does not run", name)
	}
}

// up says whether a container is observed to run.
func up(t *testing.T, agent *hostagent.Agent, name policy.GuestName) bool {
	t.Helper()
	s, err := agent.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(s.Guests, func(g api.Guest) bool { return g.Name == name && g.State == "running" }) && initOf(name) != 0
}

// destroy takes a guest away, of which nothing may be left.
func destroy(t *testing.T, agent *hostagent.Agent, dir string, name policy.GuestName) {
	t.Helper()
	if err := agent.Destroy(t.Context(), api.DestroyRequest{Names: []policy.GuestName{name}}, silent); err != nil {
		t.Fatal(err)
	}
	noTrace(t, dir, name, "destroyed")
}

// until waits for something that must come.
func until(t *testing.T, agent *hostagent.Agent, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > limit {
			s, err := agent.Status(t.Context())
			t.Fatalf("%s: not within %s: %v, %+v", what, limit, err, s)
		}
	}
}

// TestAnInitThatIsKilled again and again is started again, at once at first, then with a pause that says why; all of it is recorded.
func TestAnInitThatIsKilled(t *testing.T) {
	const name policy.GuestName = "mortal-1"
	dir := newBlade(t)
	agent := runs(t, dir)
	spawn(t, agent, name)
	var lives []time.Duration
	for range 3 {
		pid, begin := initOf(name), time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, agent, "another init", 30*time.Second, func() bool { return initOf(name) != pid && up(t, agent, name) })
		lives = append(lives, time.Since(begin).Round(time.Millisecond))
	}
	t.Log("started again after", lives)
	if lives[2] < time.Second {
		t.Errorf("the third start came after %s: nothing spaces them", lives[2])
	}
	var said []string
	entries, _ := agent.Events(0)
	for _, e := range entries {
		if e.Guest == string(name) && (e.Kind == api.GuestIs || e.Kind == api.IsWaiting) {
			said = append(said, e.Message)
		}
	}
	text := strings.Join(said, "\n")
	if strings.Count(text, "running -> stopped") != 3 || strings.Count(text, "-> running") != 4 || !strings.Contains(text, "did not stay up; next start") {
		t.Errorf("the journal wants 3 ends, 4 starts and why the last had to wait:\n%s", text)
	}
	destroy(t, agent, dir, name)
}

// TestADiskThatIsFull ends a spawn with that reason and leaves nothing, whether the clones have a disk of their own or not; with room
// again the same spawn works.
func TestADiskThatIsFull(t *testing.T) {
	for _, folder := range []string{"state", "state/lxc"} {
		t.Run(folder, func(t *testing.T) {
			const name policy.GuestName = "roomless-1"
			dir := newBlade(t)
			disk := filepath.Join(dir, folder)
			if err := errors.Join(os.MkdirAll(disk, 0o755), unix.Mount("small", disk, "tmpfs", 0, "size=64m,mode=0755")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(disk, 0); err != nil {
					t.Error(err)
				}
			})
			agent := runs(t, dir)
			ballast := filepath.Join(disk, "ballast")
			fill(t, ballast)
			begin := time.Now()
			err := agent.Spawn(t.Context(), server(name), silent)
			if !errors.Is(err, unix.ENOSPC) || time.Since(begin) > time.Minute {
				t.Errorf("after %s: %v; want that there is no space, soon", time.Since(begin), err)
			}
			t.Log(err)
			noTrace(t, dir, name, "without room")
			if err := atRest(t.Context(), agent); err != nil {
				t.Error(err)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			spawn(t, agent, name)
			destroy(t, agent, dir, name)
		})
	}
}

// fill writes a file until its disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// TestAnImageThatClonesStandOn is not removed; torn away by hand it lets the clones go on, and says what is missing to new ones.
func TestAnImageThatClonesStandOn(t *testing.T) {
	const name, late policy.GuestName = "standing-1", "standing-2"
	dir := newBlade(t)
	agent := runs(t, dir)
	spawn(t, agent, name)
	store, clones := image.Store{Dir: filepath.Join(dir, "images")}, filepath.Join(dir, "state/lxc")
	used, err := image.Used(clones)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Remove(imageID, used); !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), string(name)) {
		t.Errorf("remove: %v, want that %s uses it", err, name)
	}
	pid := initOf(name)
	if err := os.RemoveAll(filepath.Join(store.Dir, imageID)); err != nil {
		t.Fatal(err)
	}
	err = agent.Spawn(t.Context(), server(late), silent)
	if err == nil || !strings.Contains(err.Error(), "bladectl image build web") {
		t.Errorf("spawn without the image: %v", err)
	}
	noTrace(t, dir, late, "without the image")
	agent.Wake()
	time.Sleep(time.Second)
	if now := initOf(name); now != pid {
		t.Errorf("the clone's init is %d, was %d", now, pid)
	}
	tinyImage(t, store.Dir)
	spawn(t, agent, late)
	destroy(t, agent, dir, late)
	destroy(t, agent, dir, name)
	if used, err = image.Used(clones); err != nil {
		t.Fatal(err)
	}
	if err := store.Remove(imageID, used); err != nil {
		t.Errorf("remove an image without clones: %v", err)
	}
}

// TestTwoSpawnsOfOneContainer: one has it, the other hears so, and one destroy takes all of it away.
func TestTwoSpawnsOfOneContainer(t *testing.T) {
	const name policy.GuestName = "twice-1"
	dir := newBlade(t)
	agent := runs(t, dir)
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i := range errs {
		both.Go(func() { errs[i] = agent.Spawn(t.Context(), server(name), silent) })
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !strings.Contains(errors.Join(errs...).Error(), "there is a guest of that name") {
		t.Errorf("two spawns at once: %v", errs)
	}
	if initOf(name) == 0 {
		t.Error("the guest does not run")
	}
	destroy(t, agent, dir, name)
}
