package guests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Applier makes steps so.
type Applier struct {
	Drivers  map[policy.Driver]Driver
	Grace    time.Duration // how long a guest may take to stop; 0 means 10 s
	Parallel int           // guests at a time; 0 means the machine's CPUs
	Log      *slog.Logger
	Done     func(Step, time.Duration, error) // after each step, from several goroutines; may be nil
}

// Apply does the steps that are not blocked: one guest's in order and until one fails, several guests at a time. Errors of independent
// guests are joined in the order of the steps.
func (a Applier) Apply(ctx context.Context, steps []Step) error {
	var order []key
	byGuest := map[key][]int{}
	for i, s := range steps {
		k := key{s.Driver, s.Name}
		if _, seen := byGuest[k]; !seen {
			order = append(order, k)
		}
		byGuest[k] = append(byGuest[k], i)
	}
	errs := make([]error, len(steps))
	limit := a.Parallel
	if limit <= 0 {
		limit = runtime.NumCPU()
	}
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	for _, k := range order {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, i := range byGuest[k] {
				if steps[i].Verb == plan.Blocked {
					continue
				}
				if errs[i] = a.one(ctx, steps[i]); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (a Applier) one(ctx context.Context, s Step) error {
	d, ok := a.Drivers[s.Driver]
	if !ok {
		return fmt.Errorf("%s %s: no driver %q", s.Verb, s.Object, s.Driver)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", s.Verb, s.Object, err)
	}
	began := time.Now()
	err := a.do(ctx, d, s)
	took := time.Since(began)
	if a.Done != nil {
		a.Done(s, took, err)
	}
	if err != nil {
		return err
	}
	if a.Log != nil {
		a.Log.Info(string(s.Verb), "subsystem", "guests", "guest", s.Name, "object", s.Object, "took", took.Round(time.Millisecond))
	}
	return nil
}

func (a Applier) do(ctx context.Context, d Driver, s Step) error {
	switch s.Verb {
	case plan.Create, plan.Update:
		return d.Create(ctx, s.Spec)
	case plan.Start:
		return d.Start(ctx, s.Name)
	case plan.Stop:
		grace := a.Grace
		if grace == 0 {
			grace = 10 * time.Second
		}
		return d.Stop(ctx, s.Name, grace)
	case plan.Delete:
		return d.Destroy(ctx, s.Name)
	}
	return fmt.Errorf("%s %s: not a step of a guest", s.Verb, s.Object)
}
