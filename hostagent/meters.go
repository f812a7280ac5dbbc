package hostagent

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bladenet/bladenet/policy/plan"
)

// meters is what the agent counts about itself since it began. Use newMeters.
type meters struct {
	mu     sync.Mutex
	times  map[string]*histogram // by subsystem
	passes int
	drift  *driftMeter
}

func newMeters() *meters {
	return &meters{times: map[string]*histogram{}, drift: &driftMeter{each: map[driftKind]*driftCount{}}}
}

// histogram counts durations by the upper bounds of reconcileBounds, as Prometheus does.
type histogram struct {
	counts []uint64 // one a bound, not cumulated
	count  uint64
	sum    time.Duration
}

// reconcileBounds are seconds: from an idle look to a guest's boot.
func reconcileBounds() []float64 { return []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10} }

func (m *meters) reconciled(subsystem string, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bounds := reconcileBounds()
	h := m.times[subsystem]
	if h == nil {
		h = &histogram{counts: make([]uint64, len(bounds))}
		m.times[subsystem] = h
	}
	h.count++
	h.sum += took
	if i, _ := slices.BinarySearch(bounds, took.Seconds()); i < len(bounds) {
		h.counts[i]++
	}
}

func (m *meters) passed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passes++
}

// driftKind is a subsystem and a kind of object: "links", "bridge".
type driftKind struct{ subsystem, kind string }

type driftCount struct{ found, repaired uint64 }

// driftMeter counts what was not as it had been, and what of it was repaired.
type driftMeter struct {
	mu   sync.Mutex
	each map[driftKind]*driftCount
}

func (d *driftMeter) of(s plan.Step) *driftCount {
	kind, _, _ := strings.Cut(s.Object, " ")
	k := driftKind{s.Subsystem, kind}
	c := d.each[k]
	if c == nil {
		c = &driftCount{}
		d.each[k] = c
	}
	return c
}

func (d *driftMeter) found(s plan.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of(s).found++
}

func (d *driftMeter) repaired(s plan.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of(s).repaired++
}

// exposition writes metrics in Prometheus' text format, version 0.0.4. The first error stays. A sample that a family has already is
// left out: one twice would cost the whole scrape, and what directors say is in some labels.
type exposition struct {
	w    io.Writer
	seen map[string]bool // of the last family
	err  error
}

func (x *exposition) printf(format string, args ...any) {
	if x.err == nil {
		_, x.err = fmt.Fprintf(x.w, format, args...)
	}
}

// family begins a metric: its type, and what it is.
func (x *exposition) family(name, kind, help string) {
	x.seen = map[string]bool{}
	x.printf("# HELP bladenet_%s %s\n# TYPE bladenet_%s %s\n", name, help, name, kind)
}

// sample writes one value; labels are names and values in turn.
func (x *exposition) sample(name string, value any, labels ...string) {
	var pairs []string
	for i := 0; i+1 < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+"="+quoteLabel(labels[i+1]))
	}
	text := ""
	if len(pairs) > 0 {
		text = "{" + strings.Join(pairs, ",") + "}"
	}
	if x.seen[name+text] {
		return
	}
	x.seen[name+text] = true
	x.printf("bladenet_%s%s %v\n", name, text, value)
}

// one is a metric with one value.
func (x *exposition) one(name, kind, help string, value any) {
	x.family(name, kind, help)
	x.sample(name, value)
}

// quoteLabel quotes a label's value: backslash, quote and newline are escaped, nothing else.
func quoteLabel(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// number writes a condition as Prometheus does.
func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

func (m *meters) write(x *exposition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x.one("passes_total", "counter", "Passes over the blade.", m.passes)
	const name = "reconcile_seconds"
	x.family(name, "histogram", "Time to observe, plan and apply, by subsystem.")
	for _, subsystem := range slices.Sorted(maps.Keys(m.times)) {
		h := m.times[subsystem]
		total := uint64(0)
		for i, bound := range reconcileBounds() {
			total += h.counts[i]
			x.sample(name+"_bucket", total, "subsystem", subsystem, "le", fmt.Sprint(bound))
		}
		x.sample(name+"_bucket", h.count, "subsystem", subsystem, "le", "+Inf")
		x.sample(name+"_sum", h.sum.Seconds(), "subsystem", subsystem)
		x.sample(name+"_count", h.count, "subsystem", subsystem)
	}
	m.drift.write(x)
}

func (d *driftMeter) write(x *exposition) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kinds := slices.SortedFunc(maps.Keys(d.each), func(a, b driftKind) int {
		return cmp.Or(cmp.Compare(a.subsystem, b.subsystem), cmp.Compare(a.kind, b.kind))
	})
	x.family("drift_found_total", "counter", "Objects that somebody else had changed, by kind.")
	for _, k := range kinds {
		x.sample("drift_found_total", d.each[k].found, "subsystem", k.subsystem, "kind", k.kind)
	}
	x.family("drift_repaired_total", "counter", "Those of them that were repaired.")
	for _, k := range kinds {
		x.sample("drift_repaired_total", d.each[k].repaired, "subsystem", k.subsystem, "kind", k.kind)
	}
}
