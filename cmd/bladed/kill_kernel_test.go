//go:build kernel

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/hostagent"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/nft"
)

// What a process of this test's binary is told: to be bladed on the blade in a folder, what to do and when to kill itself.
const (
	childDir  = "BLADENET_TEST_DIR"
	childDo   = "BLADENET_TEST_DO"
	childKill = "BLADENET_TEST_KILL" // after that many steps; below 0: after that many milliseconds; 0: never
)

// killed is the guest of these tests.
const killed policy.GuestName = "killed-1"

func TestMain(m *testing.M) {
	if os.Getenv(childDo) == "" {
		os.Exit(m.Run())
	}
	if err := child(os.Getenv(childDir), os.Getenv(childDo), os.Getenv(childKill)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// errLeft ends a child that has done everything before its moment came.
var errLeft = errors.New("nothing is left to be killed in")

// child is bladed: it brings the blade to rest, does one thing and ends.
func child(dir, do, kill string) error {
	at, err := strconv.Atoi(kill)
	if err != nil {
		return err
	}
	d := &doom{at: at}
	agent, done, err := agentOf(dir, d.interpose)
	if err != nil {
		return err
	}
	defer done()
	if do == "dismantle" {
		return agent.Dismantle(context.Background())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx) }()
	if err := atRest(ctx, agent); err != nil {
		return err
	}
	d.arm()
	report := func(api.Event) { d.step() }
	switch do {
	case "spawn":
		err = agent.Spawn(ctx, server(killed), report)
	case "destroy":
		err = agent.Destroy(ctx, api.DestroyRequest{Names: []policy.GuestName{killed}}, report)
	case "reclone":
		err = agent.Restart(ctx, api.PowerRequest{Name: killed, Drain: time.Second, Reclone: true}, report)
	case "look":
	}
	cancel()
	if err == nil && at != 0 {
		err = errLeft
	}
	return errors.Join(err, <-ended)
}

// doom kills the process at its moment, once it is armed.
type doom struct {
	at int

	mu    sync.Mutex
	armed bool
	steps int
}

func (d *doom) arm() {
	d.mu.Lock()
	d.armed = true
	d.mu.Unlock()
	if d.at < 0 {
		time.AfterFunc(time.Duration(-d.at)*time.Millisecond, die)
	}
}

// step counts what was done.
func (d *doom) step() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.armed {
		return
	}
	if d.steps++; d.steps == d.at {
		die()
	}
}

func die() {
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {} // the signal is on its way
}

// interpose makes each step that an agent does count.
func (d *doom) interpose(c *hostagent.Config) {
	c.Links = doomedLinks{c.Links.(*bridges.Kernel), d}
	c.Filter = doomedFilter{c.Filter.(*nft.Kernel), d}
	c.Drivers[policy.DriverLXC] = doomedDriver{c.Drivers[policy.DriverLXC], d}
}

type doomedLinks struct {
	*bridges.Kernel
	doom *doom
}

func (l doomedLinks) Apply(ctx context.Context, steps []bridges.Step) error {
	for i := range steps {
		if err := l.Kernel.Apply(ctx, steps[i:i+1]); err != nil {
			return err
		}
		l.doom.step()
	}
	return nil
}

type doomedFilter struct {
	*nft.Kernel
	doom *doom
}

func (f doomedFilter) Apply(ctx context.Context, steps []nft.Step) error {
	defer f.doom.step()
	return f.Kernel.Apply(ctx, steps)
}

type doomedDriver struct {
	guests.Driver
	doom *doom
}

func (d doomedDriver) Create(ctx context.Context, s guests.Spec) error {
	defer d.doom.step()
	return d.Driver.Create(ctx, s)
}

func (d doomedDriver) Start(ctx context.Context, name policy.GuestName) error {
	defer d.doom.step()
	return d.Driver.Start(ctx, name)
}

func (d doomedDriver) Stop(ctx context.Context, name policy.GuestName, grace time.Duration) error {
	defer d.doom.step()
	return d.Driver.Stop(ctx, name, grace)
}

func (d doomedDriver) Destroy(ctx context.Context, name policy.GuestName) error {
	defer d.doom.step()
	return d.Driver.Destroy(ctx, name)
}

// bladed runs a child to its end or to its death. True: it ended before its moment came.
func bladed(t *testing.T, dir, do string, kill int) (left bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // the test's own has ended when it cleans up
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childDir+"="+dir, childDo+"="+do, childKill+"="+strconv.Itoa(kill))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && kill == 0:
		return false
	case ctx.Err() == nil && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL && kill != 0:
		return false
	case kill != 0 && strings.Contains(out.String(), errLeft.Error()):
		return true
	}
	t.Fatalf("bladed that was to %s and die at %d: %v\n%s", do, kill, err, out.String())
	return false
}

// moments are when bladed is killed: a sample of steps and times, or each step and many times.
func moments(yield func(int) bool) {
	if os.Getenv("BLADENET_CRASH_EVERY_STEP") == "" {
		for _, n := range []int{1, 5, -150} {
			if !yield(n) {
				return
			}
		}
		return
	}
	for n := -1000; n < 0; n += 40 {
		if !yield(n) {
			return
		}
	}
	for n := 1; yield(n); n++ {
	}
}

// TestBladedKilledInASpawnAndInADestroy kills bladed with SIGKILL at each moment of a spawn of a real container, and of its destroy. The
// next bladed has the guest running and in the policy, or nothing of it anywhere.
func TestBladedKilledInASpawnAndInADestroy(t *testing.T) {
	dir := newBlade(t)
	t.Cleanup(func() { bladed(t, dir, "dismantle", 0) })
	bladed(t, dir, "look", 0)
	links := ip(t, "-n", space, "-br", "link")
	there := func(when string) bool {
		t.Helper()
		bladed(t, dir, "look", 0)
		if _, err := os.Stat(filepath.Join(dir, "policy", policy.GuestFile(killed))); err != nil {
			noTrace(t, dir, killed, when)
			if now := ip(t, "-n", space, "-br", "link"); now != links {
				t.Errorf("%s: links are\n%s, were\n%s", when, now, links)
			}
			return false
		}
		if initOf(killed) == 0 {
			t.Errorf("%s: the policy has the guest, and it does not run", when)
		}
		return true
	}
	seen := map[string]int{}
	for n := range moments {
		spawned := bladed(t, dir, "spawn", n)
		is := there(fmt.Sprintf("killed at %d of the spawn", n))
		seen[fmt.Sprintf("spawn: %t", is)]++
		if !is {
			bladed(t, dir, "spawn", 0)
		}
		destroyed := bladed(t, dir, "destroy", n)
		is = there(fmt.Sprintf("killed at %d of the destroy", n))
		seen[fmt.Sprintf("destroy: %t", is)]++
		if is {
			bladed(t, dir, "destroy", 0)
			noTrace(t, dir, killed, fmt.Sprintf("destroyed after a kill at %d", n))
		}
		if n > 0 && spawned && destroyed || t.Failed() {
			t.Logf("the last was %d", n)
			break
		}
	}
	t.Log("the guest was there afterwards, how often:", seen)
	if seen["spawn: true"] == 0 || seen["spawn: false"] == 0 || seen["destroy: true"] == 0 || seen["destroy: false"] == 0 {
		t.Error("the kills were not spread over both ends")
	}
}

// TestBladedKilledInAReclone kills bladed with SIGKILL while it restarts a guest on a newer build of its image. The next bladed has the guest
// running, not drained and not stopped, on one of the two builds; a reclone that is let be brings the newer one.
func TestBladedKilledInAReclone(t *testing.T) {
	dir := newBlade(t)
	t.Cleanup(func() { bladed(t, dir, "dismantle", 0) })
	bladed(t, dir, "spawn", 0)
	entry := read(t, dir, "policy", policy.GuestFile(killed))
	build := func() string { return strings.TrimSpace(read(t, dir, "state/lxc", string(killed), image.MarkFile)) }
	upright := func(when string) {
		t.Helper()
		if initOf(killed) == 0 {
			t.Errorf("%s: it does not run", when)
		}
		if now := read(t, dir, "policy", policy.GuestFile(killed)); now != entry {
			t.Errorf("%s: its entry is\n%s", when, now)
		}
		if now, err := os.ReadFile(filepath.Join(dir, "state", "stopped.json")); err == nil && string(now) != "{}" {
			t.Errorf("%s: stopped guests: %s", when, now)
		}
	}
	seen, builds := map[string]int{}, 0
	for n := range moments {
		old := build()
		builds++
		newer := fmt.Sprintf("web-%012x", builds)
		tinyBuild(t, filepath.Join(dir, "images"), newer, time.Now())
		left := bladed(t, dir, "reclone", n)
		bladed(t, dir, "look", 0)
		when := fmt.Sprintf("killed at %d", n)
		upright(when)
		switch now := build(); now {
		case old:
			seen["old"]++
		case newer:
			seen["new"]++
		default:
			t.Errorf("%s: it stands on %s, neither %s nor %s", when, now, old, newer)
		}
		bladed(t, dir, "reclone", 0)
		upright("recloned after it was " + when)
		if now := build(); now != newer {
			t.Errorf("recloned after it was %s: it stands on %s, want %s", when, now, newer)
		}
		if n > 0 && left || t.Failed() {
			t.Logf("the last was %d", n)
			break
		}
	}
	t.Log("the build that it stood on afterwards, how often:", seen)
	bladed(t, dir, "destroy", 0)
	noTrace(t, dir, killed, "destroyed")
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
