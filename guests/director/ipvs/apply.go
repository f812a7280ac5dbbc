package ipvs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Apply does the steps in their order. A step that fails stops only what depends on it: the destinations of a service that
// could not be made. The errors are joined in the plan's order.
func (k *Kernel) Apply(ctx context.Context, steps []Step) error {
	if len(steps) == 0 {
		return nil
	}
	return k.with(func(s *socket) error { return apply(ctx, s, steps) })
}

// doer does steps in a kernel, in their order, and says what became of each; an error of its own means that this is not known. A
// step that fails does not keep it from the others.
type doer interface {
	steps(ctx context.Context, steps []Step) ([]error, error)
}

func apply(ctx context.Context, d doer, steps []Step) error {
	var errs []error
	broken := map[Key]bool{}
	for part := range slices.Chunk(steps, atOnce) {
		part = slices.DeleteFunc(slices.Clone(part), func(s Step) bool { return broken[s.Service.Key] })
		if len(part) == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s %s: %w", part[0].Verb, part[0].Object, err))...)
		}
		results, err := d.steps(ctx, part)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s %s and %d more: %w", part[0].Verb, part[0].Object, len(part)-1, err))...)
		}
		for i, s := range part {
			err := s.outcome(results[i])
			if err == nil || broken[s.Service.Key] {
				continue
			}
			errs = append(errs, fmt.Errorf("%s %s: %w", s.Verb, s.Object, err))
			broken[s.Service.Key] = s.Op == AddService
		}
	}
	return errors.Join(errs...)
}

// outcome reads the kernel's answer to a step.
func (s Step) outcome(err error) error {
	switch s.Op {
	case AddService, SetService:
		return schedulerError(s.Service, err)
	case DelService, DelDestination:
		return gone(err)
	}
	return err
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
