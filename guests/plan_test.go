package guests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
)

var images = shelf{"lxc/web": "web-0123456789ab", "kvm/director": "director-ba9876543210"}

func realServer(name string) policy.Guest {
	return policy.Guest{
		Name: policy.GuestName(name), Role: policy.RoleRealServer, Driver: policy.DriverLXC, Image: "web", Memory: 256 << 20, CPUs: 1,
		Inside: policy.Inside{Hostname: name},
	}
}

func director(name string) policy.Guest {
	return policy.Guest{
		Name: policy.GuestName(name), Role: policy.RoleDirector, Driver: policy.DriverKVM, Image: "director", Memory: 512 << 20, CPUs: 1,
		CID: 1001, Ports: []policy.Port{{Name: name + ".0", MAC: policy.MAC{2, 0, 0, 0, 1, 0}}, {Name: name + ".1", MAC: policy.MAC{2, 0, 0, 0, 1, 1}}},
	}
}

// as is a guest that its driver holds as defined, in a phase.
func as(g policy.Guest, phase Phase) Observed {
	return Observed{Spec: Define(g, images[string(g.Driver)+"/"+g.Image]), Phase: phase, Cloned: true, Defined: true}
}

func with[T any](v T, change func(*T)) T {
	change(&v)
	return v
}

// older is a guest that stands on an earlier build of its image.
func older(o Observed) Observed {
	o.Image = "web-ffffffffffff"
	return o
}

func TestBuilds(t *testing.T) {
	web, shop := realServer("www-1"), with(realServer("www-2"), func(g *policy.Guest) { g.Image = "shop" })
	for _, c := range []struct {
		name         string
		want         policy.Guest
		have         []Observed
		build, newer string
	}{
		{"none", web, nil, "", ""},
		{"newest", web, []Observed{as(web, Running)}, "web-0123456789ab", ""},
		{"older", web, []Observed{older(as(web, Running))}, "web-ffffffffffff", "web-0123456789ab"},
		{"of another image", web, []Observed{with(as(web, Running), func(o *Observed) { o.Image = "web-front-0123456789ab" })}, "web-front-0123456789ab", ""},
		{"only a name", web, []Observed{with(as(web, Running), func(o *Observed) { o.Image = "web-front" })}, "web-front", ""},
		{"gone from the store", shop, []Observed{with(as(shop, Running), func(o *Observed) { o.Image = "shop-0123456789ab" })}, "shop-0123456789ab", ""},
		{"of another driver", web, []Observed{with(as(web, Running), func(o *Observed) { o.Driver = policy.DriverKVM })}, "", ""},
	} {
		s := State{Guests: c.have}
		resolve(&s, []policy.Guest{c.want})
		if build, newer := s.Builds(c.want); build != c.build || newer != c.newer {
			t.Errorf("%s: %q, %q; want %q, %q", c.name, build, newer, c.build, c.newer)
		}
	}
}

func TestPlan(t *testing.T) {
	web, dir := realServer("www-1"), director("dir-1")
	other := with(realServer("www-2"), func(g *policy.Guest) { g.Memory = 512 << 20 })
	unknown := with(realServer("www-3"), func(g *policy.Guest) { g.Image = "shop" })
	volumes := []policy.Volume{{Name: "data", Path: "/srv/data"}, {Name: "pages", Path: "/srv/pages", ReadOnly: true}}
	cases := []struct {
		name string
		want []policy.Guest
		have State
	}{
		{"nothing", nil, State{}},
		{"fresh", []policy.Guest{web, dir, other}, State{}},
		{"converged", []policy.Guest{web, dir}, State{Guests: []Observed{as(dir, Running), as(web, Running)}}},
		{"stopped", []policy.Guest{web, dir}, State{Guests: []Observed{as(dir, Stopped), as(web, Stopped)}}},
		{"unwanted", nil, State{Guests: []Observed{as(dir, Stopped), as(web, Running), as(other, Partial)}}},
		{"changed", []policy.Guest{web, other, dir}, State{Guests: []Observed{
			with(as(dir, Running), func(o *Observed) { o.Ports[1].Name, o.CID = "old.1", 77 }),
			with(as(web, Running), func(o *Observed) { o.Memory, o.CPUs = 64<<20, 2 }),
			with(as(other, Stopped), func(o *Observed) { o.Image = "web-ffffffffffff" }),
		}}},
		{"volumes", []policy.Guest{
			with(web, func(g *policy.Guest) { g.Volumes = volumes }), with(other, func(g *policy.Guest) { g.Volumes = volumes }),
			with(realServer("www-4"), func(g *policy.Guest) { g.Volumes = volumes }),
		}, State{Guests: []Observed{
			with(as(web, Running), func(o *Observed) { o.Volumes = volumes[:1] }), with(as(other, Stopped), func(o *Observed) { o.Volumes = volumes[1:] }),
		}}},
		{"newer-build", []policy.Guest{web, other, realServer("www-4"), with(realServer("www-5"), func(g *policy.Guest) { g.Memory = 1 << 30 })}, State{
			Guests: []Observed{
				older(as(web, Running)), older(as(other, Stopped)), older(as(realServer("www-4"), Running)), older(as(realServer("www-5"), Stopped)),
			},
		}},
		{"newer-build-asked-for", []policy.Guest{web, other}, State{
			Guests: []Observed{older(as(web, Running)), older(as(other, Stopped))},
			Held:   map[policy.GuestName]Hold{"www-1": {Off: true, Reason: "an operator stopped it", Reclone: true}, "www-2": {Off: true, Reason: "an operator stopped it", Reclone: true}},
		}},
		{"other-image", []policy.Guest{web, other}, State{Guests: []Observed{
			with(as(web, Running), func(o *Observed) { o.Image = "web-front-0123456789ab" }), with(as(other, Stopped), func(o *Observed) { o.Image = "shop-0123456789ab" }),
		}}},
		{"edited", []policy.Guest{web}, State{Guests: []Observed{with(as(web, Stopped), func(o *Observed) { o.Stale = true })}}},
		{"partial", []policy.Guest{web}, State{Guests: []Observed{{Spec: Spec{Name: "www-1", Driver: policy.DriverLXC}, Phase: Partial}}}},
		{"no-image", []policy.Guest{unknown, web}, State{}},
		{"no-image-but-running", []policy.Guest{unknown}, State{Guests: []Observed{with(as(unknown, Running), func(o *Observed) { o.Image = "shop-0123456789ab" })}}},
		{"libvirtd-down", []policy.Guest{web, dir}, State{Down: map[policy.Driver]string{policy.DriverKVM: "libvirtd cannot be reached: systemctl start libvirtd"}}},
		{"foreign", []policy.Guest{dir}, State{Guests: []Observed{
			{Spec: Spec{Name: "dir-1", Driver: policy.DriverKVM}, Phase: Foreign},
			{Spec: Spec{Name: "somebody", Driver: policy.DriverKVM}, Phase: Foreign},
		}}},
		{"paused", []policy.Guest{dir}, State{Guests: []Observed{with(as(dir, Paused), func(o *Observed) { o.Reason = "paused after a disk error" })}}},
		{"paused-with-room", []policy.Guest{dir}, State{Guests: []Observed{with(as(dir, Paused), func(o *Observed) { o.Resumes = true })}}},
		{"paused-with-room-again-and-again", []policy.Guest{dir}, State{
			Guests: []Observed{with(as(dir, Paused), func(o *Observed) { o.Resumes = true })},
			Held:   map[policy.GuestName]Hold{"dir-1": {Until: time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC), Reason: "it was started 3 times and did not stay up"}},
		}},
		{"held", []policy.Guest{web, other}, State{
			Guests: []Observed{as(web, Stopped), as(other, Stopped)},
			Held: map[policy.GuestName]Hold{
				"www-1": {Off: true, Reason: "an operator stopped it"},
				"www-2": {Until: time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC), Reason: "ended 3 times within a minute"},
			},
		}},
		{"stopped-by-an-operator", []policy.Guest{dir, web, other}, State{
			Guests: []Observed{as(dir, Paused), as(web, Running), as(other, Stopped)},
			Held:   map[policy.GuestName]Hold{"dir-1": {Off: true, Reason: "an operator stopped it"}, "www-1": {Off: true, Reason: "an operator stopped it"}, "www-2": {Off: true, Reason: "an operator stopped it"}},
		}},
		{"hung", []policy.Guest{dir, web}, State{
			Guests: []Observed{as(dir, Running), as(web, Stopped)},
			Hung:   map[policy.GuestName]string{"dir-1": "its helper has not answered for 2m0s", "www-1": "not of one that is stopped"},
		}},
		{"hung-and-stopped-by-an-operator", []policy.Guest{dir}, State{
			Guests: []Observed{as(dir, Running)}, Held: map[policy.GuestName]Hold{"dir-1": {Off: true, Reason: "an operator stopped it"}}, Hung: map[policy.GuestName]string{"dir-1": "silent"},
		}},
		{"other-driver", []policy.Guest{with(web, func(g *policy.Guest) { g.Driver, g.Image = policy.DriverKVM, "director" })}, State{Guests: []Observed{as(web, Running)}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			resolve(&c.have, c.want)
			steps := Plan(c.want, c.have)
			var b bytes.Buffer
			fmt.Fprintf(&b, "%d before the links, %d after them\n", len(steps.Remove), len(steps.Run))
			if err := plan.Render(&b, steps.All()); err != nil {
				t.Fatal(err)
			}
			golden.Check(t, "plan-"+c.name+".txt", b.Bytes())
		})
	}
}

func resolve(s *State, want []policy.Guest) {
	s.Images = map[ImageKey]Image{}
	for _, g := range want {
		id, err := images.Resolve(g.Image, g.Driver)
		i := Image{ID: id}
		if err != nil {
			i.Problem = err.Error()
		}
		s.Images[imageKey(g)] = i
	}
}

// pass does what the agent's loop does: observe, plan, apply what removes, apply what runs.
func pass(t *testing.T, drivers map[policy.Driver]Driver, want []policy.Guest) (Steps, error) {
	t.Helper()
	have, err := Observe(context.Background(), drivers, images, want)
	if err != nil {
		t.Fatal(err)
	}
	steps := Plan(want, have)
	a := Applier{Drivers: drivers}
	return steps, errors.Join(a.Apply(context.Background(), steps.Remove), a.Apply(context.Background(), steps.Run))
}

// Whatever part of the work fails, what was left is repaired by the next pass, and after it there is nothing to do.
func TestEveryFaultConverges(t *testing.T) {
	before := []policy.Guest{realServer("old-1"), director("old-2"), realServer("kept-1")}
	after := []policy.Guest{realServer("kept-1"), realServer("new-1"), director("new-2")}
	for fail := 1; ; fail++ {
		kvm, lxc := newFake(policy.DriverKVM), newFake(policy.DriverLXC)
		drivers := map[policy.Driver]Driver{policy.DriverKVM: kvm, policy.DriverLXC: lxc}
		if _, err := pass(t, drivers, before); err != nil {
			t.Fatal(err)
		}
		kvm.parts, lxc.parts = 0, 0
		kvm.failAt, lxc.failAt = fail, fail
		_, err := pass(t, drivers, after)
		if err == nil {
			if fail < 5 {
				t.Fatalf("only %d parts: the fakes inject nothing", fail-1)
			}
			return
		}
		kvm.failAt, lxc.failAt = 0, 0
		if _, err := pass(t, drivers, after); err != nil {
			t.Fatalf("fault in part %d, then a retry: %v", fail, err)
		}
		if steps, err := pass(t, drivers, after); err != nil || !steps.Empty() {
			t.Fatalf("fault in part %d, after the retry: %v, %v", fail, steps.All(), err)
		}
	}
}

// Random fleets follow each other; each ends with nothing to do, and foreign domains stay.
func TestRandomWalk(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	kvm, lxc := newFake(policy.DriverKVM), newFake(policy.DriverLXC)
	kvm.guests["theirs"] = &Observed{Spec: Spec{Name: "theirs", Driver: policy.DriverKVM}, Phase: Foreign}
	drivers := map[policy.Driver]Driver{policy.DriverKVM: kvm, policy.DriverLXC: lxc}
	for round := range 300 {
		var want []policy.Guest
		for i := range 6 {
			name := fmt.Sprintf("g%d", i)
			switch random.IntN(3) {
			case 0:
				want = append(want, with(realServer(name), func(g *policy.Guest) { g.Memory = int64(1+random.IntN(2)) << 28 }))
			case 1:
				want = append(want, director(name))
			}
		}
		for _, f := range []*fake{kvm, lxc} {
			f.parts, f.failAt = 0, random.IntN(8)
			for _, g := range f.guests { // somebody stops or kills guests from outside
				if g.Phase == Running && random.IntN(3) == 0 {
					g.Phase = Stopped
				}
			}
		}
		_, _ = pass(t, drivers, want)
		kvm.failAt, lxc.failAt = 0, 0
		if _, err := pass(t, drivers, want); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		steps, err := pass(t, drivers, want)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, s := range steps.All() {
			if s.Verb != plan.Blocked || !strings.Contains(s.Reason, "restart to apply") {
				t.Fatalf("round %d: still to do: %v", round, s)
			}
		}
		if g := kvm.guests["theirs"]; g == nil || g.Phase != Foreign {
			t.Fatalf("round %d: a foreign domain was touched: %+v", round, g)
		}
	}
}

// A driver that is down holds back its own guests only.
func TestOneDriverDown(t *testing.T) {
	kvm, lxc := newFake(policy.DriverKVM), newFake(policy.DriverLXC)
	drivers := map[policy.Driver]Driver{policy.DriverKVM: kvm, policy.DriverLXC: lxc}
	want := []policy.Guest{realServer("www-1"), director("dir-1")}
	for _, c := range []struct{ down, up *fake }{{kvm, lxc}, {lxc, kvm}} {
		c.down.down = errors.New("it is down")
		steps, err := pass(t, drivers, want)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.down.calls) != 0 && c.down == kvm {
			t.Errorf("calls to a driver that is down: %v", c.down.calls)
		}
		blocked := 0
		for _, s := range steps.All() {
			if s.Verb == plan.Blocked && s.Reason == "it is down" {
				blocked++
			}
		}
		if blocked != 1 {
			t.Errorf("%d blocked steps, want 1: %v", blocked, steps.All())
		}
		for name, g := range c.up.guests {
			if g.Phase != Running {
				t.Errorf("%s is %s", name, g.Phase)
			}
		}
		c.down.down = nil
	}
}

// One guest's failure stops that guest's later steps and nobody else's; errors come in the order of the steps.
func TestApplyGoesOn(t *testing.T) {
	lxc := newFake(policy.DriverLXC)
	lxc.guests["b"] = &Observed{Spec: Spec{Name: "b"}, Phase: Foreign} // create fails
	lxc.guests["d"] = &Observed{Spec: Spec{Name: "d"}, Phase: Foreign}
	var steps []Step
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		s := Define(realServer(name), "web-0123456789ab")
		steps = append(steps, step(s, plan.Create, nil, ""), step(s, plan.Start, nil, ""))
	}
	err := Applier{Drivers: map[policy.Driver]Driver{policy.DriverLXC: lxc}, Parallel: 3}.Apply(context.Background(), steps)
	if got, want := fmt.Sprint(err), "create b: it is foreign\ncreate d: it is foreign"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range []policy.GuestName{"a", "c", "e"} {
		if lxc.guests[name].Phase != Running {
			t.Errorf("%s is %s", name, lxc.guests[name].Phase)
		}
	}
	for _, c := range lxc.calls {
		if c == "start b" || c == "start d" {
			t.Errorf("%s after its creation failed", c)
		}
	}
}

func TestApplyOfNoDriver(t *testing.T) {
	err := Applier{}.Apply(context.Background(), []Step{step(Spec{Name: "x", Driver: "xen"}, plan.Start, nil, "")})
	if err == nil || !strings.Contains(err.Error(), `no driver "xen"`) {
		t.Error(err)
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[int64]string{0: "0B", 1: "1B", 1024: "1KiB", 1536: "1536B", 512 << 20: "512MiB", 3 << 30: "3GiB", 1 << 40: "1024GiB"} {
		if got := Size(in); got != want {
			t.Errorf("Size(%d) = %s, want %s", in, got, want)
		}
	}
}

func TestStarted(t *testing.T) {
	if at := Started(os.Getpid()); at.IsZero() || time.Since(at) < 0 || time.Since(at) > time.Hour {
		t.Errorf("this process began %v", at)
	}
	if at := Started(1 << 30); !at.IsZero() {
		t.Errorf("a process that is not there began %v", at)
	}
}
