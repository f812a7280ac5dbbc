package ipvs

import (
	"context"
	"errors"
	"fmt"
	"time"

	lib "github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// Apply does the steps in their order. A step that fails stops only what depends on it: the destinations of a service that
// could not be made. The errors are joined in the plan's order.
func (k *Kernel) Apply(ctx context.Context, steps []Step) error {
	if len(steps) == 0 {
		return nil
	}
	// All of them in one go: to hand each over by itself costs more than the kernel takes for it.
	limit := opTimeout + time.Duration(len(steps))*stepTimeout
	return k.do(ctx, limit, func(ctx context.Context, h *lib.Handle) error { return apply(ctx, handle{h}, steps) })
}

// doer does one step in a kernel.
type doer interface {
	step(s Step) error
}

type handle struct{ *lib.Handle }

func apply(ctx context.Context, d doer, steps []Step) error {
	var errs []error
	broken := map[Key]bool{}
	for _, s := range steps {
		if broken[s.Service.Key] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s %s: %w", s.Verb, s.Object, err))...)
		}
		if err := d.step(s); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", s.Verb, s.Object, err))
			broken[s.Service.Key] = s.Op == AddService
		}
	}
	return errors.Join(errs...)
}

func (h handle) step(s Step) error {
	service, destination := encodeService(s.Service), encodeDestination(s.Destination)
	switch s.Op {
	case AddService:
		return schedulerError(s.Service, h.NewService(service))
	case SetService:
		return schedulerError(s.Service, h.UpdateService(service))
	case DelService:
		return gone(h.DelService(service))
	case AddDestination:
		return h.NewDestination(service, destination)
	case SetDestination:
		return h.UpdateDestination(service, destination)
	case DelDestination:
		return gone(h.DelDestination(service, destination))
	}
	return fmt.Errorf("unknown operation %d", s.Op)
}

// schedulerError says what the kernel means by ENOENT: neither the scheduler nor a module for it is there.
func schedulerError(s Service, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("no scheduler %s in this kernel; load module ip_vs_%s: %w", s.Scheduler, s.Scheduler, err)
	}
	return err
}

// gone takes what is not there any more as deleted.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
