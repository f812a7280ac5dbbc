package hostagent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// memory is a driver whose guests are only said to be there.
type memory struct {
	guests.Driver
	mu   sync.Mutex
	have map[policy.GuestName]guests.Observed
}

func (m *memory) Observe(context.Context) ([]guests.Observed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []guests.Observed
	for _, o := range m.have {
		out = append(out, o)
	}
	return out, nil
}

func (m *memory) change(name policy.GuestName, f func(*guests.Observed)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.have[name]
	f(&o)
	m.have[name] = o
	return nil
}

func (m *memory) Create(_ context.Context, s guests.Spec) error {
	return m.change(s.Name, func(o *guests.Observed) {
		*o = guests.Observed{Spec: s, Phase: guests.Stopped, Cloned: true, Defined: true}
	})
}

func (m *memory) Start(_ context.Context, name policy.GuestName) error {
	return m.change(name, func(o *guests.Observed) { o.Phase = guests.Running })
}

func (m *memory) Stop(_ context.Context, name policy.GuestName, _ time.Duration) error {
	return m.change(name, func(o *guests.Observed) { o.Phase = guests.Stopped })
}

func (m *memory) Destroy(_ context.Context, name policy.GuestName) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.have, name)
	return nil
}

func (m *memory) of(name policy.GuestName) guests.Observed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.have[name]
}

// newest is a store of one build of each image, which changes.
type newest struct{ digest string }

func (n *newest) Resolve(name string, _ policy.Driver) (string, error) {
	return name + "-" + n.digest, nil
}

func (*newest) Fits(string, policy.Role) error { return nil }

// guestAgent is an agent whose guests are all running, and nothing else.
func guestAgent(t *testing.T) (*Agent, *memory, *newest) {
	t.Helper()
	dir := t.TempDir()
	writePolicy(t, dir)
	withContainer(t, filepath.Join(dir, "policy"))
	a := trialAgent(t, dir, &world{})
	containers, machines := &memory{have: map[policy.GuestName]guests.Observed{}}, &memory{have: map[policy.GuestName]guests.Observed{}}
	images := &newest{"000000000000"}
	a.cfg.Drivers = map[policy.Driver]guests.Driver{policy.DriverLXC: containers, policy.DriverKVM: machines}
	a.cfg.Images = images
	a.order = []stage{{"guests", a.removeGuests}, {"guests", a.runGuests}}
	applied(t, a, 0)
	return a, containers, images
}

// said collects what an operation reports.
func said(words *[]string) func(api.Event) {
	return func(e api.Event) {
		if e.Message != "" {
			*words = append(*words, e.Message)
		}
	}
}

// container is the only guest of such an agent.
const container policy.GuestName = "www-l1"

// withContainer adds its entry to a policy folder.
func withContainer(t *testing.T, dir string) {
	t.Helper()
	files, err := policy.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	fleet, found := policy.Load(files)
	if found.HasErrors() {
		t.Fatal(found)
	}
	entry, err := policy.Allocate(fleet, policy.SpawnRequest{Role: policy.RoleRealServer, Name: container, Image: "web", Services: []policy.ServiceName{"www"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, entry.Name), entry.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A guest keeps its volumes when it is destroyed, unless the request says otherwise, and then without the guest too.
func TestDestroyKeepsVolumes(t *testing.T) {
	for _, together := range []bool{true, false} {
		a, have, _ := guestAgent(t)
		const name = container
		data := filepath.Join(a.cfg.State, "volumes", string(name), "data")
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := a.endVolumes(t.Context(), api.DestroyRequest{Names: []policy.GuestName{name}, Volumes: true}, silent); err == nil || !strings.Contains(err.Error(), "is running") {
			t.Errorf("volumes of a running guest: %v", err)
		}
		var words []string
		if err := a.Destroy(t.Context(), api.DestroyRequest{Names: []policy.GuestName{name}, Volumes: together}, said(&words)); err != nil {
			t.Fatal(err)
		}
		if have.of(name).Name != "" {
			t.Error("the guest is there")
		}
		text := strings.Join(words, "\n")
		if _, err := os.Stat(data); (err == nil) == together {
			t.Errorf("volumes asked for %t: %v", together, err)
		}
		if together != strings.Contains(text, "removed data") || together == strings.Contains(text, "data; a guest of that name finds them") {
			t.Errorf("volumes asked for %t: it says %q", together, text)
		}
		err := a.Destroy(t.Context(), api.DestroyRequest{Names: []policy.GuestName{name}, Volumes: true}, silent)
		if (err != nil) != together { // nothing is left of it, which is a mistake of the name
			t.Errorf("a second time, volumes gone %t: %v", together, err)
		}
		if _, err := os.Stat(data); err == nil {
			t.Error("the volume is there after all")
		}
	}
}

// A newer build of an image is shown and waits: a guest that ends by itself comes back as it was, and one that is asked for is made anew.
func TestReclone(t *testing.T) {
	a, have, images := guestAgent(t)
	const name = container
	old := have.of(name).Image
	status := func() api.Guest {
		t.Helper()
		s, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Guests[slices.IndexFunc(s.Guests, func(g api.Guest) bool { return g.Name == name })]
	}
	restart := func() string {
		t.Helper()
		var words []string
		if err := a.Restart(t.Context(), api.PowerRequest{Name: name, Reclone: true}, said(&words)); err != nil {
			t.Fatal(err)
		}
		return strings.Join(words, "\n")
	}
	if text := restart(); !strings.Contains(text, "no newer build") {
		t.Errorf("without a newer build: %q", text)
	}
	images.digest = "ffffffffffff"
	if s := status(); s.Build != old || !strings.HasSuffix(s.NewerBuild, "ffffffffffff") {
		t.Errorf("status: %q, newer %q", s.Build, s.NewerBuild)
	}
	p, err := a.Plan(t.Context(), api.PlanRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Steps) > 0 || !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, "restart --reclone "+string(name)) }) {
		t.Errorf("plan: %v, notes %q", p.Steps, p.Notes)
	}
	if err := have.Stop(t.Context(), name, 0); err != nil { // it crashes
		t.Fatal(err)
	}
	if err := a.pass(t.Context(), silent); err != nil {
		t.Fatal(err)
	}
	if o := have.of(name); o.Image != old || o.Phase != guests.Running {
		t.Errorf("after a crash: %s, %s", o.Image, o.Phase)
	}
	if err := a.Stop(t.Context(), api.PowerRequest{Name: name, Reclone: true}, silent); err != nil {
		t.Fatal(err)
	}
	if o := have.of(name); o.Image == old || o.Phase != guests.Stopped {
		t.Errorf("stopped to be made anew: %s, %s", o.Image, o.Phase)
	}
	if err := a.release(name, nil, silent); err != nil {
		t.Fatal(err)
	}
	if o := have.of(name); o.Image == old || o.Phase != guests.Running {
		t.Errorf("started: %s, %s", o.Image, o.Phase)
	}
	if s := status(); s.NewerBuild != "" || s.Held != "" {
		t.Errorf("in the end: %+v", s)
	}
	if diff := cmp.Diff([]string(nil), notesFor(t, a, name)); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// notesFor are the plan's notes that name a guest.
func notesFor(t *testing.T, a *Agent, name policy.GuestName) []string {
	t.Helper()
	p, err := a.Plan(t.Context(), api.PlanRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(p.Notes, func(n string) bool { return !strings.HasPrefix(n, string(name)+" ") })
}
