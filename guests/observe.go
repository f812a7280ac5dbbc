package guests

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// State is everything that planning reads: what the drivers found and what stands in the way.
type State struct {
	Guests []Observed                  // by driver, then name
	Images map[ImageKey]Image          // for every image that a wanted guest names
	Down   map[policy.Driver]string    // drivers that cannot be asked now, with one sentence
	Held   map[policy.GuestName]Hold   // guests that must not start now; the caller fills it
	Hung   map[policy.GuestName]string // running guests that must be started again, and why; the caller fills it
}

// ImageKey names an image as a policy does, for one driver.
type ImageKey struct {
	Name   string
	Driver policy.Driver
}

// Image is what the store says of a name: an identity, or why there is none.
type Image struct {
	ID      string
	Problem string
}

// Hold keeps a guest stopped.
type Hold struct {
	Operator bool      // an operator stopped it: it is stopped now and stays so, silently
	Until    time.Time // else: not to be started before, and shown as blocked with Reason
	Reason   string
}

// Observe asks every driver at once, and the store for the images that want names. A driver that does not answer is Down with its
// sentence; the others' guests are still found. The error is the context's only.
func Observe(ctx context.Context, drivers map[policy.Driver]Driver, images Images, want []policy.Guest) (State, error) {
	s := State{Images: map[ImageKey]Image{}, Down: map[policy.Driver]string{}, Held: map[policy.GuestName]Hold{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, d := range drivers {
		wg.Go(func() {
			found, err := d.Observe(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.Down[name] = err.Error()
				return
			}
			s.Guests = append(s.Guests, found...)
		})
	}
	for _, g := range want {
		key := ImageKey{g.Image, g.Driver}
		if _, done := s.Images[key]; done {
			continue
		}
		id, err := images.Resolve(g.Image, g.Driver)
		i := Image{ID: id}
		if err != nil {
			i.Problem = err.Error()
		}
		s.Images[key] = i
	}
	wg.Wait()
	slices.SortFunc(s.Guests, func(a, b Observed) int {
		return cmp.Or(cmp.Compare(a.Driver, b.Driver), cmp.Compare(a.Name, b.Name))
	})
	return s, ctx.Err()
}
