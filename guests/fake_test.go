package guests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// fake is a driver that keeps guests in memory and answers as the real ones do: work in parts, and a part may fail and leave the
// parts before it done.
type fake struct {
	driver policy.Driver

	mu     sync.Mutex
	guests map[policy.GuestName]*Observed
	parts  int // parts of work done so far
	failAt int // the part that fails, once; 0: none
	calls  []string
	down   error
}

var errInjected = errors.New("injected")

func newFake(driver policy.Driver) *fake {
	return &fake{driver: driver, guests: map[policy.GuestName]*Observed{}}
}

// part is one step inside a method; an error means that it was not done.
func (f *fake) part() error {
	f.parts++
	if f.parts == f.failAt {
		return errInjected
	}
	return nil
}

func (f *fake) enter(method string, name policy.GuestName) func() {
	f.mu.Lock()
	f.calls = append(f.calls, method+" "+string(name))
	return f.mu.Unlock
}

func (f *fake) Observe(context.Context) ([]Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return nil, f.down
	}
	var out []Observed
	for _, name := range slices.Sorted(maps.Keys(f.guests)) {
		out = append(out, *f.guests[name])
	}
	return out, nil
}

func (f *fake) Create(_ context.Context, s Spec) error {
	defer f.enter("create", s.Name)()
	g := f.guests[s.Name]
	if g != nil && (g.Phase == Running || g.Phase == Paused || g.Phase == Foreign) {
		return fmt.Errorf("create %s: it is %s", s.Name, g.Phase)
	}
	for _, do := range []func(){
		func() { f.guests[s.Name] = &Observed{Spec: Spec{Name: s.Name, Driver: f.driver}, Phase: Partial} },
		func() { f.guests[s.Name].Cloned = true },
		func() {
			*f.guests[s.Name] = Observed{Spec: s, Phase: Stopped, Cloned: true, Defined: true}
		},
	} {
		if err := f.part(); err != nil {
			return err
		}
		do()
	}
	return nil
}

func (f *fake) Start(_ context.Context, name policy.GuestName) error {
	defer f.enter("start", name)()
	g := f.guests[name]
	if g == nil || g.Phase != Stopped && g.Phase != Running {
		return fmt.Errorf("start %s: not created", name)
	}
	if err := f.part(); err != nil {
		return err
	}
	g.Phase = Running
	return nil
}

func (f *fake) Stop(_ context.Context, name policy.GuestName, _ time.Duration) error {
	defer f.enter("stop", name)()
	if err := f.part(); err != nil {
		return err
	}
	if g := f.guests[name]; g != nil && (g.Phase == Running || g.Phase == Paused) {
		g.Phase = Stopped
	}
	return nil
}

func (f *fake) Destroy(_ context.Context, name policy.GuestName) error {
	defer f.enter("destroy", name)()
	g := f.guests[name]
	if g == nil {
		return nil
	}
	if g.Phase != Stopped && g.Phase != Partial {
		return fmt.Errorf("destroy %s: it is %s", name, g.Phase)
	}
	if err := f.part(); err != nil {
		return err
	}
	g.Defined, g.Phase = false, Partial
	if err := f.part(); err != nil {
		return err
	}
	delete(f.guests, name)
	return nil
}

func (f *fake) ConsoleLog(name policy.GuestName) string { return "/nowhere/" + string(name) }

func (f *fake) Events(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// shelf is a store: image name to identity.
type shelf map[string]string

func (s shelf) Resolve(name string, driver policy.Driver) (string, error) {
	if id, ok := s[string(driver)+"/"+name]; ok {
		return id, nil
	}
	return "", fmt.Errorf("image %q is not in the store /images: bladectl image build %s", name, name)
}

func (shelf) Fits(string, policy.Role) error { return nil }
