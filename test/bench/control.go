package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
	"github.com/bladenet/bladenet/test/bench/fleet"
	"github.com/bladenet/bladenet/test/bench/peer"
	"github.com/bladenet/bladenet/test/bench/result"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// desk is a namespace without links where a ruleset is written over and over.
type desk struct {
	ns     *traffic.Namespace
	kernel *nft.Kernel
	raw    *peer.Raw
	rules  filter.Ruleset
	note   string
}

func newDesk(ctx context.Context, size fleet.Size) (*desk, error) {
	b, err := fleet.Derive(size)
	if err != nil {
		return nil, err
	}
	d := &desk{}
	if d.ns, err = traffic.NewNamespace(); err != nil {
		return nil, err
	}
	if d.kernel, err = nft.NewKernel(d.ns.Path()); err != nil {
		return nil, err
	}
	err = d.ns.Do(func() error {
		d.raw, err = peer.DialRaw(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, err
	}
	d.rules, d.note, err = usable(ctx, d.kernel, filter.Compile(b))
	return d, err
}

func (d *desk) Close() {
	_ = d.raw.Close()
	_ = d.kernel.Close()
	_ = d.ns.Close()
}

// bridgeOnly is the ruleset less the table that shields the blade itself: one table is what the peers write.
func bridgeOnly(r filter.Ruleset) filter.Ruleset {
	var out filter.Ruleset
	for _, t := range r.Tables {
		if t.Family == filter.Bridge {
			out.Tables = append(out.Tables, t)
		}
	}
	return out
}

// timed makes a subject of something whose wall time counts, in milliseconds.
func timed(name string, do func() error) result.Subject {
	return result.Subject{Name: name, Measure: func() (float64, error) {
		begin := time.Now()
		err := do()
		return float64(time.Since(begin)) / 1e6, err
	}}
}

// replacement is R1, R2 and R3: the whole table anew.
func replacement(ctx context.Context, o options) ([]result.Row, error) {
	d, err := newDesk(ctx, fleet.Size{Services: 1000, Guests: 256})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	rules := bridgeOnly(d.rules)
	steps, err := nft.Plan(rules, nft.State{})
	if err != nil {
		return nil, err
	}
	finished, err := nft.Encode(steps)
	if err != nil {
		return nil, err
	}
	text := "add table bridge bladenet\ndelete table bridge bladenet\n" + rules.Text()
	var library *peer.Library
	err = d.ns.Do(func() error {
		if library, err = peer.OpenLibrary(); err != nil {
			return err
		}
		return library.Read(filter.BridgeTable)
	})
	if err != nil {
		return nil, err
	}
	defer library.Close()
	series, err := result.Interleave(
		o.rounds,
		timed("ours", func() error { return d.kernel.Apply(ctx, steps) }),
		timed("planned", func() error {
			steps, err := nft.Plan(rules, nft.State{})
			if err != nil {
				return err
			}
			return d.kernel.Apply(ctx, steps)
		}),
		timed("raw", func() error { return d.raw.Send(finished, 1) }),
		timed("nft", func() error {
			_, err := d.ns.Run(text, "nft", "-f", "-")
			return err
		}),
		timed("library", library.Replace),
	)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("whole table anew, 256 guests x 1000 services (%d elements, %d kB)", elements(rules), len(finished)>>10)
	raw, tool, lib := "finished bytes, one sendmsg", "nft -f", "google/nftables, lasting, in chunks"
	return []result.Row{
		result.Compare("R1", what, raw, "ms", series["ours"], series["raw"]).Judged(result.AtMost, 1.5).Noted(d.note),
		result.Compare("R1.plan", what+", plan included", raw, "ms", series["planned"], series["raw"]),
		result.Compare("R2", what, tool, "ms", series["ours"], series["nft"]).Judged(result.AtMost, 0.45),
		result.Compare("R3", what, lib, "ms", series["ours"], series["library"]).Judged(result.AtMost, 0.60),
	}, nil
}

func elements(r filter.Ruleset) int {
	n := 0
	for _, t := range r.Tables {
		for _, s := range t.Sets {
			n += len(s.Elements)
		}
	}
	return n
}

// change is R4: one element more and less.
func change(ctx context.Context, o options) ([]result.Row, error) {
	d, err := newDesk(ctx, fleet.Size{Services: 1000, Guests: 256})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	more := bridgeOnly(d.rules)
	less := without(more, "vip-in4")
	if err := replace(ctx, d.kernel, more); err != nil {
		return nil, err
	}
	remove, removal, element, err := d.difference(ctx, less)
	if err != nil {
		return nil, err
	}
	if err := d.kernel.Apply(ctx, remove); err != nil {
		return nil, err
	}
	add, addition, _, err := d.difference(ctx, more)
	if err != nil {
		return nil, err
	}
	const pairs = 100
	times := func(n int, do ...func() error) func() (float64, error) {
		return func() (float64, error) {
			begin := time.Now()
			for range n {
				for _, f := range do {
					if err := f(); err != nil {
						return 0, err
					}
				}
			}
			return float64(time.Since(begin)) / 1e3 / float64(n*len(do)), nil
		}
	}
	tool := func(verb string) func() error {
		return func() error {
			_, err := d.ns.Run("", "nft", verb, "element", "bridge", filter.BridgeTable, "vip-in4", "{ "+element+" }")
			return err
		}
	}
	series, err := result.Interleave(
		o.rounds,
		result.Subject{Name: "ours", Measure: times(pairs, func() error { return d.kernel.Apply(ctx, add) }, func() error { return d.kernel.Apply(ctx, remove) })},
		result.Subject{Name: "raw", Measure: times(pairs, func() error { return d.raw.Send(addition, 1) }, func() error { return d.raw.Send(removal, 1) })},
		result.Subject{Name: "nft", Measure: times(1, tool("add"), tool("delete"))},
		result.Subject{Name: "pass", Measure: times(1, func() error { return d.pass(ctx, less) }, func() error { return d.pass(ctx, more) })},
	)
	if err != nil {
		return nil, err
	}
	return []result.Row{
		result.Compare("R4", "one element more or less", "finished bytes", "us", series["ours"], series["raw"]).Judged(result.AtMost, 1.8),
		result.Compare("R4.tool", "one element more or less", "nft add or delete element", "us", series["ours"], series["nft"]).Judged(result.AtMost, 0.005),
		result.Compare("R4.pass", "one element more or less, observed and planned", "nft add or delete element", "us", series["pass"], series["nft"]),
	}, nil
}

// pass makes the kernel hold a ruleset as the agent does: it reads back what there is, plans the difference and applies it.
func (d *desk) pass(ctx context.Context, want filter.Ruleset) error {
	have, err := d.kernel.Observe(ctx)
	if err != nil {
		return err
	}
	steps, err := nft.Plan(want, have)
	if err != nil {
		return err
	}
	return d.kernel.Apply(ctx, steps)
}

// without leaves the first element of a set out.
func without(r filter.Ruleset, set string) filter.Ruleset {
	out := filter.Ruleset{Tables: append([]filter.Table{}, r.Tables...)}
	for i, t := range out.Tables {
		out.Tables[i].Sets = append([]filter.Set{}, t.Sets...)
		for j, s := range t.Sets {
			if s.Name == set {
				out.Tables[i].Sets[j].Elements = s.Elements[1:]
			}
		}
	}
	return out
}

// difference plans the way from what the kernel holds to a ruleset, which must be one element, and says it in nft's words.
func (d *desk) difference(ctx context.Context, want filter.Ruleset) (steps []nft.Step, finished []byte, element string, err error) {
	have, err := d.kernel.Observe(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	if steps, err = nft.Plan(want, have); err != nil {
		return nil, nil, "", err
	}
	if len(steps) != 1 || len(steps[0].Detail) != 1 {
		return nil, nil, "", fmt.Errorf("plan one element: %v", steps)
	}
	finished, err = nft.Encode(steps)
	return steps, finished, strings.TrimLeft(steps[0].Detail[0], "+- "), err
}

// load is R6: a set of 20 000 elements is in the kernel as it was asked for.
func load(ctx context.Context, _ options) ([]result.Row, error) {
	d, err := newDesk(ctx, fleet.Size{Services: 10_000, Guests: 64, IPv4Only: true})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	rules := bridgeOnly(d.rules)
	if err := replace(ctx, d.kernel, rules); err != nil {
		return nil, err
	}
	asked := 0
	for _, s := range rules.Tables[0].Sets {
		if s.Name == "vip-in4" {
			asked = len(s.Elements)
		}
	}
	var row result.Row
	err = d.ns.Do(func() error {
		library, err := peer.OpenLibrary()
		if err != nil {
			return err
		}
		defer library.Close()
		if err := library.Read(filter.BridgeTable); err != nil {
			return err
		}
		stored, err := library.Load("vip-in4")
		note := fmt.Sprintf("%d elements in one set", asked)
		if err != nil {
			note += "; the peer said: " + err.Error()
		}
		row = result.Count("R6", "share of a big set's elements that are in the kernel after one call", "google/nftables, one call", "of all",
			float64(library.Count("vip-in4"))/float64(asked), float64(stored)/float64(asked)).Noted(note)
		return nil
	})
	return []result.Row{row.Judged(result.AtLeast, 1)}, err
}
