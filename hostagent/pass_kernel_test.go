//go:build kernel

package hostagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/nft"
	"github.com/bladenet/bladenet/policy/plan"
)

// faultyFilter is a real filter whose Apply fails on demand.
type faultyFilter struct {
	*nft.Kernel
	fail error
}

func (f *faultyFilter) Apply(ctx context.Context, steps []nft.Step) error {
	if f.fail != nil {
		return f.fail
	}
	return f.Kernel.Apply(ctx, steps)
}

// recorder is a driver that runs nothing and notes what it was asked for.
type recorder struct {
	mu      sync.Mutex
	created map[policy.GuestName]guests.Spec
	started []policy.GuestName
}

func (r *recorder) Observe(context.Context) ([]guests.Observed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []guests.Observed
	for _, s := range r.created {
		o := guests.Observed{Spec: s, Phase: guests.Stopped, Cloned: true, Defined: true}
		if slices.Contains(r.started, s.Name) {
			o.Phase = guests.Running
		}
		out = append(out, o)
	}
	return out, nil
}

func (r *recorder) Create(_ context.Context, s guests.Spec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.created[s.Name] = s
	return nil
}

func (r *recorder) Start(_ context.Context, name policy.GuestName) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = append(r.started, name)
	return nil
}

func (r *recorder) Stop(context.Context, policy.GuestName, time.Duration) error { return nil }
func (r *recorder) Destroy(_ context.Context, name policy.GuestName) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.created, name)
	return nil
}
func (r *recorder) ConsoleLog(name policy.GuestName) string { return "/nowhere/" + string(name) }

func (r *recorder) Events(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }

// anyImage is a store that has every image.
type anyImage struct{}

func (anyImage) Resolve(name string, _ policy.Driver) (string, error) {
	return name + "-000000000000", nil
}

func (anyImage) Fits(string, policy.Role) error { return nil }

// namespaceWith makes a network namespace with one NIC, or none where it has no name, and returns its path and a handle to it.
func namespaceWith(t testing.TB, nic string) (string, *netlink.Handle) {
	t.Helper()
	type made struct {
		path   string
		handle *netlink.Handle
		err    error
	}
	out, done := make(chan made), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the thread holds the namespace and ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			out <- made{err: err}
			return
		}
		ns, err := netns.Get()
		if err != nil {
			out <- made{err: err}
			return
		}
		h, err := netlink.NewHandleAt(ns)
		out <- made{fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid()), h, err}
		<-done
	}()
	m := <-out
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { close(done) })
	if nic == "" {
		return m.path, m.handle
	}
	if err := m.handle.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: nic}}); err != nil {
		t.Fatal(err)
	}
	return m.path, m.handle
}

// rig is an agent on a namespace of its own, which has a trunk.
type rig struct {
	*Agent
	filter *faultyFilter
	driver *recorder // of containers
	path   string
	handle *netlink.Handle
}

// newRig returns a rig without a revision.
func newRig(t *testing.T) *rig {
	t.Helper()
	path, handle := namespaceWith(t, "eno1")
	kernel, err := nft.NewKernel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Close() })
	filter := &faultyFilter{Kernel: kernel}
	driver := &recorder{created: map[policy.GuestName]guests.Spec{}}
	a, err := New(Config{
		Blade: "lame-l1", Policy: t.TempDir(), State: t.TempDir(), Log: slog.New(slog.DiscardHandler), Filter: filter, Images: anyImage{},
		Links:   bridges.NewKernel(bridges.Options{Namespace: path}),
		Drivers: map[policy.Driver]guests.Driver{policy.DriverLXC: driver, policy.DriverKVM: &recorder{created: map[policy.GuestName]guests.Spec{}}},
		Dial: func(context.Context, uint32) (*channel.Client, error) {
			return nil, errors.New("there is no director in this test")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.life = t.Context()
	t.Cleanup(func() { removeAll(t, a) })
	return &rig{a, filter, driver, path, handle}
}

// removeAll brings the blade back to the fleet without guests, and looks for what should be gone.
func removeAll(t *testing.T, a *Agent) {
	t.Helper()
	files, err := policy.ReadDir("../test/fleets/one-blade")
	if err != nil {
		t.Fatal(err)
	}
	enforce(t, a, files)
	if out := a.walk(context.Background(), &pass{blade: a.wantedNow().blade, apply: true}); out.err != nil {
		t.Error(out.err)
	}
	if _, err := os.Stat(policy.NamespacePath("www-1")); !os.IsNotExist(err) {
		t.Errorf("the guest's namespace is left: %v", err)
	}
}

// enforce makes files the revision in force.
func enforce(t *testing.T, a *Agent, files []policy.File) {
	t.Helper()
	silent := func(api.Event) {}
	b, err := a.check(files, silent)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.enforce(revision.Revision{Note: "test", Files: files}, b, silent); err != nil {
		t.Fatal(err)
	}
}

// oneServer is the demo's fleet with one real server.
func oneServer(t *testing.T) []policy.File {
	t.Helper()
	files, err := policy.ReadDir("../test/fleets/one-blade")
	if err != nil {
		t.Fatal(err)
	}
	fleet, found := policy.Load(files)
	if found.HasErrors() {
		t.Fatal(found)
	}
	entry, err := policy.Allocate(fleet, policy.SpawnRequest{
		Role: policy.RoleRealServer, Name: "www-1", Blade: "lame-l1", Services: []policy.ServiceName{"www"}, Image: "web",
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(files, entry)
}

func TestAFailingFilterKeepsPortsOffTheirBridges(t *testing.T) {
	a := newRig(t)
	enforce(t, a.Agent, oneServer(t))
	a.filter.fail = errors.New("no buffer space available")
	out := a.walk(t.Context(), &pass{blade: a.wantedNow().blade, apply: true})
	if out.err == nil || !strings.Contains(out.err.Error(), "no buffer space") {
		t.Errorf("walk = %v, want the filter's error", out.err)
	}
	for _, name := range []string{"www-1.0", "www-1.1"} {
		l, err := a.handle.LinkByName(name)
		if err != nil {
			t.Fatalf("%s is not made: %v", name, err)
		}
		if at := l.Attrs(); at.MasterIndex != 0 || at.Flags&1 != 0 {
			t.Errorf("%s has master %d, flags %s; want none and down", name, at.MasterIndex, at.Flags)
		}
	}
	if len(a.driver.started) > 0 {
		t.Errorf("started behind a filter that is not as wanted: %v", a.driver.started)
	}
	if br, err := a.handle.LinkByName("br130"); err != nil || br.Attrs().Flags&1 == 0 {
		t.Errorf("the rest of the blade did not converge: br130 %v %v", br, err)
	}

	a.filter.fail = nil
	a.walk(t.Context(), &pass{blade: a.wantedNow().blade, apply: true})
	for _, name := range []string{"www-1.0", "www-1.1"} {
		if l, err := a.handle.LinkByName(name); err != nil || l.Attrs().MasterIndex == 0 {
			t.Errorf("%s did not join its bridge once the filter stood: %v", name, err)
		}
	}
	if !slices.Equal(a.driver.started, []policy.GuestName{"www-1"}) {
		t.Errorf("started = %v, want www-1 once", a.driver.started)
	}
	if out := a.walk(t.Context(), &pass{blade: a.wantedNow().blade}); len(out.steps) > 0 {
		t.Errorf("planned after all was done: %v", out.steps)
	}
}

// TestAMissingTrunkHoldsBackOnlyVLANs takes the trunk away before anything is there.
func TestAMissingTrunkHoldsBackOnlyVLANs(t *testing.T) {
	a := newRig(t)
	trunk, err := a.handle.LinkByName("eno1")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.handle.LinkDel(trunk); err != nil {
		t.Fatal(err)
	}
	enforce(t, a.Agent, oneServer(t))
	out := a.walk(t.Context(), &pass{blade: a.wantedNow().blade, apply: true})
	a.note(out)
	said := slices.ContainsFunc(out.waiting, func(w api.Waiting) bool {
		return w.Step.Verb == plan.Blocked && strings.Contains(w.Step.Reason, "blades.")
	})
	if !said {
		t.Errorf("nothing names the trunk and the remedy: %v", out.waiting)
	}
	if l, err := a.handle.LinkByName("www-1.0"); err != nil || l.Attrs().MasterIndex == 0 {
		t.Errorf("the rest of the blade did not converge: %v", err)
	}
}
