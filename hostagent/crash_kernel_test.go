//go:build kernel

package hostagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/nft"
)

// What a process of this test's binary is told: to be an agent on a namespace, and to kill itself after a step.
const (
	childSpace = "BLADENET_TEST_NAMESPACE"
	childDir   = "BLADENET_TEST_DIR"
	childKill  = "BLADENET_TEST_KILL_AFTER"
)

func TestMain(m *testing.M) {
	if os.Getenv(childSpace) == "" {
		os.Exit(m.Run())
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is an agent's process: it finishes what an earlier one began, applies the policy folder and ends.
func child() error {
	at, err := strconv.Atoi(os.Getenv(childKill))
	if err != nil {
		return err
	}
	a, done, err := agentIn(os.Getenv(childSpace), os.Getenv(childDir), &doom{at: at})
	if err != nil {
		return err
	}
	defer done()
	ctx := context.Background()
	a.life = ctx
	a.resume(ctx)
	if err := a.Apply(ctx, api.ApplyRequest{}, silent); err != nil {
		return err
	}
	if at > 0 {
		return errLeft
	}
	return nil
}

// errLeft ends a child that has done everything before its last step came.
var errLeft = errors.New("no step is left to be killed after")

// doom kills the process after its at-th step; at 0 never.
type doom struct{ at, steps int }

func (d *doom) step() {
	if d.steps++; d.steps == d.at {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
		select {} // the signal is on its way
	}
}

// agentIn returns an agent on a namespace whose folders are in dir, with real links, filter and insides. Each of its steps counts for d.
func agentIn(path, dir string, d *doom) (*Agent, func(), error) {
	kernel, err := nft.NewKernel(path)
	if err != nil {
		return nil, nil, err
	}
	containers := fileDriver{dir: filepath.Join(dir, "containers"), doom: d}
	if err := os.MkdirAll(containers.dir, 0o755); err != nil {
		return nil, nil, err
	}
	a, err := New(Config{
		Blade: "lame-l1", Policy: filepath.Join(dir, "policy"), State: filepath.Join(dir, "state"), Log: slog.New(slog.DiscardHandler), Images: anyImage{},
		Links: doomedLinks{bridges.NewKernel(bridges.Options{Namespace: path}), d}, Filter: doomedFilter{kernel, d},
		Drivers: map[policy.Driver]guests.Driver{policy.DriverLXC: containers},
		Dial: func(context.Context, uint32) (*channel.Client, error) {
			return nil, errors.New("there is no director in this test")
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, kernel.Close())
	}
	a.fill = func(ctx context.Context, ns string, steps []inside.Step) error {
		for i := range steps {
			if err := inside.Apply(ctx, ns, steps[i:i+1]); err != nil {
				return err
			}
			d.step()
		}
		return nil
	}
	return a, func() { _ = kernel.Close(); _ = a.journal.Close() }, nil
}

// doomedLinks and doomedFilter do their steps one by one, the filter its one transaction.
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
	if err := f.Kernel.Apply(ctx, steps); err != nil {
		return err
	}
	f.doom.step()
	return nil
}

// fileDriver is a driver whose guests are files: what it made outlives its process.
type fileDriver struct {
	dir  string
	doom *doom
}

func (d fileDriver) Observe(context.Context) ([]guests.Observed, error) {
	files, err := filepath.Glob(filepath.Join(d.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []guests.Observed
	for _, f := range files {
		o := guests.Observed{Phase: guests.Stopped, Cloned: true, Defined: true}
		data, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(data, &o.Spec)
		}
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(strings.TrimSuffix(f, "json") + "runs"); err == nil {
			o.Phase = guests.Running
		}
		out = append(out, o)
	}
	return out, nil
}

func (d fileDriver) write(name string, data []byte) error {
	defer d.doom.step()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (d fileDriver) Create(_ context.Context, s guests.Spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return d.write(string(s.Name)+".json", data)
}

func (d fileDriver) Start(_ context.Context, name policy.GuestName) error {
	return d.write(string(name)+".runs", nil)
}

func (d fileDriver) Stop(_ context.Context, name policy.GuestName, _ time.Duration) error {
	defer d.doom.step()
	return os.Remove(filepath.Join(d.dir, string(name)+".runs"))
}

func (d fileDriver) Destroy(_ context.Context, name policy.GuestName) error {
	defer d.doom.step()
	return os.Remove(filepath.Join(d.dir, string(name)+".json"))
}

func (d fileDriver) ConsoleLog(name policy.GuestName) string { return "/nowhere/" + string(name) }

func (d fileDriver) Events(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }

// crashed runs a child that is killed after a step, or with 0 runs to its end. True: no step was left.
func crashed(t *testing.T, path, dir string, after int) (left bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childSpace+"="+path, childDir+"="+dir, childKill+"="+strconv.Itoa(after))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil && after == 0:
		return false
	case ctx.Err() == nil && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL && after > 0:
		return false
	case after > 0 && strings.Contains(string(out), errLeft.Error()):
		return true
	}
	t.Fatalf("child that was to die after step %d: %v\n%s", after, err, out)
	return false
}

// sampled says that there is no time to kill after every step of every change (make crash does).
func sampled() bool { return os.Getenv("BLADENET_CRASH_EVERY_STEP") == "" }

// kills are the steps after which a child is killed: a sample, or each.
func kills(sample ...int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		if sampled() {
			for _, n := range sample {
				if !yield(n) {
					return
				}
			}
			return
		}
		for n := 1; yield(n); n++ {
		}
	}
}

// putPolicy makes files the policy folder of dir.
func putPolicy(t *testing.T, dir string, files []policy.File) {
	t.Helper()
	folder := filepath.Join(dir, "policy")
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(f.Name)), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// edit replaces text in the files; each replacement must be found.
func edit(t *testing.T, files []policy.File, pairs ...string) []policy.File {
	t.Helper()
	var out []policy.File
	found := make([]bool, len(pairs)/2)
	for _, f := range files {
		text := string(f.Data)
		for i := range found {
			was := text
			text = strings.Replace(text, pairs[2*i], pairs[2*i+1], 1)
			found[i] = found[i] || text != was
		}
		out = append(out, policy.File{Name: f.Name, Data: []byte(text)})
	}
	for i, ok := range found {
		if !ok {
			t.Fatalf("the policy has no %q", pairs[2*i])
		}
	}
	return out
}

// changes are ten changes of a blade that has one real server.
func changes(t *testing.T, one []policy.File) map[string][]policy.File {
	t.Helper()
	fleet, found := policy.Load(one)
	if found.HasErrors() {
		t.Fatal(found)
	}
	second, err := policy.Allocate(fleet, policy.SpawnRequest{
		Role: policy.RoleRealServer, Name: "www-2", Blade: "lame-l1", Services: []policy.ServiceName{"www"}, Image: "web",
	})
	if err != nil {
		t.Fatal(err)
	}
	const shop = "services:\n  shop: {zone: public, vips: [203.0.113.20], ports: [443/tcp]}\n"
	return map[string][]policy.File{
		"a second server":  append(one[:len(one):len(one)], second),
		"no server":        one[:len(one)-1],
		"a second service": append(edit(t, one, "{www: {}}", "{www: {}, shop: {}}"), policy.File{Name: "shop.yaml", Data: []byte(shop)}),
		"a service's port": edit(t, one, "ports: [80/tcp]", "ports: [80/tcp, 8080/tcp]"),
		"another VIP":      edit(t, one, "203.0.113.10, ", "203.0.113.12, ", "to: [203.0.113.10, 80/tcp]", "to: [203.0.113.12, 80/tcp]", "to: [203.0.113.10, 81/tcp]", "to: [203.0.113.12, 81/tcp]"),
		"a narrower rule":  edit(t, one, "203.0.113.240/28", "203.0.113.248/29"),
		"no rule":          edit(t, one, "[22/tcp, icmp]", "[icmp]"),
		"another address":  edit(t, one, "198.51.100.2,", "198.51.100.9,"),
		"another VLAN":     edit(t, one, "vlan: 130", "vlan: 131"),
		"fewer clients":    edit(t, one, "ports: [80/tcp]", "ports: [80/tcp]\n    clients: [198.18.0.0/24, \"2001:db8:c0::/64\"]"),
	}
}

// TestAKillAfterAnyStepConverges kills the agent while it brings a blade up from nothing, and while it changes one, and lets another
// process go on. Meanwhile frames that no policy allows knock from both sides, and none may pass.
func TestAKillAfterAnyStepConverges(t *testing.T) {
	one := oneServer(t)
	t.Run("from nothing", func(t *testing.T) {
		for after := range kills(1, 10, 12, 30) {
			if dieAndReturn(t, nil, one, after) {
				return
			}
		}
	})
	all := changes(t, one)
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if sampled() && i%2 == 1 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for after := range kills(1 + i%3) {
				if dieAndReturn(t, one, all[name], after) {
					return
				}
			}
		})
	}
}

// dieAndReturn brings a new blade to one policy, then to another with a kill after a step, and to its end. True: there are not so many
// steps.
func dieAndReturn(t *testing.T, from, to []policy.File, after int) bool {
	t.Helper()
	path, handle := namespaceWith(t, "")
	wire := newWire(t, handle)
	dir := t.TempDir()
	t.Cleanup(func() {
		_ = exec.Command("umount", "-l", "/run/bladenet/netns/www-1", "/run/bladenet/netns/www-2").Run()
	}) // only after a failure
	if from != nil {
		putPolicy(t, dir, from)
		crashed(t, path, dir, 0)
	}
	putPolicy(t, dir, to)
	x := newIntruder(t, wire, from, to)
	begin := time.Now()
	last := crashed(t, path, dir, after)
	died := time.Since(begin)
	crashed(t, path, dir, 0)
	t.Logf("step %d: killed after %s, brought to its end after %s", after, died.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	verifyAfterCrash(t, path, dir, after)
	x.end(t, after)
	return last
}

// verifyAfterCrash looks whether the blade is as its policy says, nothing is left over, and takes it down.
func verifyAfterCrash(t *testing.T, path, dir string, after int) {
	t.Helper()
	a, done, err := agentIn(path, dir, &doom{})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	a.life = t.Context()
	now := a.wantedNow()
	if now.revision.Trial != nil {
		t.Errorf("killed after step %d: revision %d is still on trial", after, now.revision.Number)
	}
	if out := a.walk(t.Context(), &pass{blade: now.blade}); out.err != nil || len(out.steps) > 0 {
		t.Errorf("killed after step %d: left to do: %v, %v", after, out.steps, out.err)
	}
	for _, folder := range []string{"policy", "state/revisions"} {
		if left, err := filepath.Glob(filepath.Join(dir, folder, ".*")); err != nil || len(left) > 0 {
			t.Errorf("killed after step %d: left over: %v %v", after, left, err)
		}
	}
	if err := a.Dismantle(t.Context()); err != nil {
		t.Errorf("killed after step %d: %v", after, err)
	}
}
