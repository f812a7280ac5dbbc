package hostagent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/volume"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// volumes are where the drivers put them: beside their own folders.
func (a *Agent) volumes() volume.Store {
	return volume.Store{Dir: filepath.Join(a.cfg.State, "volumes")}
}

// stillWanted are the guests of a request that are to be destroyed. Left out are those that the policy does not know and that have left
// volumes, if these are what the request is about.
func (a *Agent) stillWanted(r api.DestroyRequest, fleet *policy.Fleet) []policy.GuestName {
	return slices.DeleteFunc(slices.Clone(r.Names), func(name policy.GuestName) bool {
		if _, known := fleet.Guest(name); known || !r.Volumes {
			return false
		}
		left, err := a.volumes().Names(name)
		return err == nil && len(left) > 0
	})
}

// endVolumes removes the volumes of guests that are no more, or says that they stay. The caller holds passing.
func (a *Agent) endVolumes(ctx context.Context, r api.DestroyRequest, report func(api.Event)) error {
	store := a.volumes()
	for _, name := range r.Names {
		left, err := store.Names(name)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			continue
		}
		if !r.Volumes {
			report(api.Event{Message: fmt.Sprintf(
				"volumes of %s stay in %s: %s; a guest of that name finds them, `bladectl destroy --volumes %s` removes them",
				name, store.Guest(name), words(left), name)})
			continue
		}
		if err := a.isGone(ctx, name); err != nil {
			return fmt.Errorf("remove volumes of %s: %w", name, err)
		}
		if err := store.Remove(name); err != nil {
			return err
		}
		report(api.Event{Message: fmt.Sprintf("volumes of %s: removed %s", name, words(left))})
	}
	return nil
}

// isGone is an error while a guest is on this blade, or nobody can say.
func (a *Agent) isGone(ctx context.Context, name policy.GuestName) error {
	have, err := guests.Observe(ctx, a.cfg.Drivers, a.cfg.Images, nil)
	if err != nil {
		return err
	}
	if why, down := have.Down[policy.DriverLXC]; down {
		return errors.New(why)
	}
	for _, o := range have.Guests {
		if o.Name == name && o.Driver == policy.DriverLXC {
			return fmt.Errorf("its container is %s", o.Phase)
		}
	}
	return nil
}

func words(names []policy.VolumeName) string {
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	return strings.Join(out, ", ")
}
