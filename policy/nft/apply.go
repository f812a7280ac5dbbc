package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
)

// Apply does the steps of one plan in one transaction: all of them or none. Where the kernel's answer is lost, what it holds is
// read back and decides.
func (k *Kernel) Apply(ctx context.Context, steps []Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, err := encode(steps)
	if err != nil || b.empty() {
		return err
	}
	err = k.send.send(ctx, b)
	if err == nil {
		if now, err := k.read.GetGen(); err != nil {
			k.seen.valid = false
		} else {
			k.seen.after(steps, now.ID)
		}
		return nil
	}
	if !doubtful(err) {
		return fmt.Errorf("apply filter: %w", err)
	}
	return k.settle(ctx, steps, err)
}

// Encode writes the netlink batch that Apply sends for steps, its last message asking for an acknowledgement. No steps are
// no bytes.
func Encode(steps []Step) ([]byte, error) {
	b, err := encode(steps)
	if err != nil || b.empty() {
		return nil, err
	}
	data, _ := b.finish()
	return data, nil
}

func encode(steps []Step) (*batch, error) {
	b := newBatch()
	for _, s := range steps {
		if s.Verb == plan.Blocked {
			continue
		}
		b.buf = slices.Grow(b.buf, s.size())
		if err := s.encode(b); err != nil {
			return nil, fmt.Errorf("apply %s: %w", s.Object, err)
		}
	}
	return b, nil
}

// size is about how many bytes a step takes: a big batch that grew by doubling would be copied more often than written.
func (s Step) size() int {
	const perElement, perRule, perObject = 24, 768, 256
	sets, n := []filter.Set{{Elements: s.add}, {Elements: s.remove}}, 0
	if s.replace {
		sets = s.table.Sets
		n = perObject * (len(s.table.Sets) + len(s.table.Chains) + len(s.table.Counters))
		for _, c := range s.table.Chains {
			n += perRule * len(c.Rules)
		}
	}
	for _, set := range sets {
		for _, e := range set.Elements {
			n += perElement + len(e.From) + len(e.To) + 2*len(e.Goto)
		}
	}
	return n
}

func (s Step) encode(b *batch) error {
	e := newEncoder(b, s.table)
	if s.replace {
		return e.replaceTable(s.keep)
	}
	e.elements(unix.NFT_MSG_DELSETELEM, s.set, s.remove)
	e.elements(unix.NFT_MSG_NEWSETELEM, s.set, s.add)
	return nil
}

// doubtful says whether an error leaves open if the batch was done.
func doubtful(err error) bool {
	return errors.Is(err, errDoubtful) || errors.Is(err, unix.ENOBUFS)
}

// settle asks the kernel whether a batch whose answer was lost was done.
func (k *Kernel) settle(ctx context.Context, steps []Step, cause error) error {
	have, err := k.observe(ctx)
	if err != nil {
		return fmt.Errorf("apply filter: %w; read back: %w", cause, err)
	}
	for _, s := range steps {
		done, err := s.done(have)
		if err != nil {
			return fmt.Errorf("apply filter: %w; read back: %w", cause, err)
		}
		if !done {
			return fmt.Errorf("apply filter: %s was not done: %w", s.Object, cause)
		}
	}
	return nil
}

// done says whether the kernel holds what the step makes.
func (s Step) done(have State) (bool, error) {
	held, ok := have.tables[tableName{s.table.Family, s.table.Name}]
	if !ok {
		return false, nil
	}
	if s.replace {
		static, err := wantedStatic(s.table)
		if err != nil || difference(static, held.static) != "" {
			return false, err
		}
		for _, set := range s.table.Sets {
			if _, changed := elementStep(s.table, set, held.elements[set.Name]); changed {
				return false, nil
			}
		}
		return true, nil
	}
	for _, e := range s.add {
		if !held.elements[s.set.Name][e] {
			return false, nil
		}
	}
	for _, e := range s.remove {
		if held.elements[s.set.Name][e] {
			return false, nil
		}
	}
	return true, nil
}
