package guests

import (
	"cmp"
	"context"
	"slices"
	"strings"
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

// ImageKey names an image as a policy does, for one kind of guest.
type ImageKey struct {
	Name   string
	Driver policy.Driver
	Role   policy.Role
}

func imageKey(g policy.Guest) ImageKey { return ImageKey{g.Image, g.Driver, g.Role} }

// Image is what the store says of a name: an identity, or why there is none.
type Image struct {
	ID      string
	Problem string
}

// Hold keeps a guest stopped.
type Hold struct {
	Off     bool      // it is stopped now and stays so, silently
	Reclone bool      // with Off: it is made anew from the newest build of its image
	Until   time.Time // else: not to be started before, and shown as blocked with Reason
	Reason  string
}

// Builds says which build of an image a wanted guest's clone stands on, and which other build of the same image is the newest; either may be
// empty.
func (s State) Builds(g policy.Guest) (have, newer string) {
	i := slices.IndexFunc(s.Guests, func(o Observed) bool { return o.Name == g.Name && o.Driver == g.Driver && o.Phase != Foreign })
	if i < 0 {
		return "", ""
	}
	have = s.Guests[i].Image
	if newest := s.Images[imageKey(g)].ID; newest != "" && newest != have && isBuildOf(have, g.Image) {
		newer = newest
	}
	return have, newer
}

// isBuildOf says whether an identity, a name and a digest of twelve digits, is of an image of that name. A name may have hyphens, too.
func isBuildOf(id, name string) bool {
	digest, ok := strings.CutPrefix(id, name+"-")
	return ok && len(digest) == 12 && strings.Trim(digest, "0123456789abcdef") == ""
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
		key := imageKey(g)
		if _, done := s.Images[key]; done {
			continue
		}
		id, err := images.Resolve(g.Image, g.Driver)
		if err == nil {
			err = images.Fits(id, g.Role)
		}
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
