package bridges

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/plan"
)

// change is what a step does. Its types are data; the model in the tests carries them out without a kernel.
type change interface {
	apply(ctx context.Context, s *session) error
}

// Apply does the steps of one phase in their order. A step that fails stops only the steps that need its object; the errors of the others
// are joined in the plan's order. Blocked steps are passed over. A cancelled context stops between two changes of the kernel.
func (k *Kernel) Apply(ctx context.Context, steps []Step) error {
	if len(steps) == 0 {
		return nil
	}
	s, err := k.open()
	if err != nil {
		return fmt.Errorf("apply links: %w", err)
	}
	defer s.close()
	failed := map[string]bool{}
	var errs []error
	for i := 0; i < len(steps); {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("apply links: %w", err))...)
		}
		if run := deletions(steps[i:]); run > 1 {
			errs = append(errs, s.deleteTogether(ctx, steps[i:i+run], failed)...)
			i += run
			continue
		}
		if err := s.applyStep(ctx, steps[i], failed); err != nil {
			errs = append(errs, err)
		}
		i++
	}
	return errors.Join(errs...)
}

func (s *session) applyStep(ctx context.Context, step Step, failed map[string]bool) error {
	if step.Verb == plan.Blocked {
		return nil
	}
	for _, need := range step.needs {
		if failed[need] {
			failed[step.Object] = true
			s.k.log.LogAttrs(ctx, slog.LevelDebug, "step left out", append(attributesOf(step), slog.String("waits_for", need))...)
			return nil
		}
	}
	if err := step.do.apply(ctx, s); err != nil {
		failed[step.Object] = true
		return fmt.Errorf("%s %s: %w", step.Verb, step.Object, err)
	}
	s.applied(ctx, step)
	return nil
}

func (s *session) applied(ctx context.Context, step Step) {
	s.k.log.LogAttrs(ctx, slog.LevelInfo, "link "+string(step.Verb)+"d", attributesOf(step)...)
}

func attributesOf(step Step) []slog.Attr {
	out := []slog.Attr{slog.String("subsystem", subsystem), slog.String("link", step.Object)}
	if step.Guest != "" {
		out = append(out, slog.String("guest", step.Guest))
	}
	if len(step.Detail) > 0 {
		out = append(out, slog.Any("detail", step.Detail))
	}
	return out
}

// deletions counts the deletions of links at the head of the steps.
func deletions(steps []Step) int {
	for i, step := range steps {
		if _, ok := step.do.(deleteLink); !ok {
			return i
		}
	}
	return len(steps)
}

// deleteTogether deletes links in one request: each is put into a link group that nobody uses, and the group is deleted. The kernel then
// waits once for everybody who still looks at the links, not once for each, which is forty times as fast for some hundred ports.
func (s *session) deleteTogether(ctx context.Context, steps []Step, failed map[string]bool) []error {
	err := s.deleteGroup(ctx, steps)
	if err == nil {
		for _, step := range steps {
			s.applied(ctx, step)
		}
		return nil
	}
	if ctx.Err() != nil {
		return []error{err}
	}
	s.k.log.LogAttrs(ctx, slog.LevelDebug, "links are deleted one by one", slog.Any("error", err))
	var errs []error
	for _, step := range steps {
		if err := s.applyStep(ctx, step, failed); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (s *session) deleteGroup(ctx context.Context, steps []Step) error {
	links, err := dump(ctx, s.handle)
	if err != nil {
		return err
	}
	group := unusedGroup(links)
	for _, step := range steps {
		l := step.do.(deleteLink)
		err := s.send(ctx, "put "+l.name+" into a group", unix.RTM_SETLINK, 0, header(l.index), attribute32(unix.IFLA_GROUP, group))
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	err = s.send(ctx, fmt.Sprintf("delete %d links", len(steps)), unix.RTM_DELLINK, 0, header(0), attribute32(unix.IFLA_GROUP, group))
	if errors.Is(err, unix.ENODEV) {
		return nil // every one was gone already
	}
	return err
}

// unusedGroup returns a link group above newborn that no link is in.
func unusedGroup(links []Link) uint32 {
	used := map[uint32]bool{}
	for _, l := range links {
		used[l.Group] = true
	}
	group := newborn + 1
	for used[group] {
		group++
	}
	return group
}
