package reach

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
)

// Pace of all probes together. Where there are more targets than that allows, each is probed more rarely.
const (
	apart  = 5 * time.Millisecond // between two of them
	reopen = 5 * time.Second      // before a wire that failed is opened again
)

// Prober probes targets for ever. Its methods are for several goroutines.
type Prober struct {
	log  *slog.Logger
	open func(own []netip.Addr, heard func(Answer)) (Wire, error)
	wake chan struct{}

	mu       sync.Mutex
	own      []netip.Addr
	targets  map[Key]*probing
	waiting  queue
	out      map[uint32]*probing // probes that are not answered yet, by their sequence number
	findings map[Key]Finding     // never changed; nil when it is to be gathered anew
	changed  func()
	wire     Wire
	wireOf   []netip.Addr // whose answers it hears
	free     time.Time    // when the next probe may be sent
}

// New returns a prober without targets. Answers are heard by what open opens, at the director's own addresses of eth0, one a family at most.
func New(log *slog.Logger, open func(own []netip.Addr, heard func(Answer)) (Wire, error)) *Prober {
	return &Prober{
		log: log, open: open, wake: make(chan struct{}, 1), targets: map[Key]*probing{}, out: map[uint32]*probing{}, changed: func() {},
	}
}

// Want replaces the targets and the director's own addresses. A target that was there, unchanged, goes on undisturbed; one that leaves
// is forgotten.
func (p *Prober) Want(own []netip.Addr, targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = own
	stays := make(map[Key]bool, len(targets))
	now := time.Now()
	for _, t := range targets {
		stays[t.Key] = true
		w, known := p.targets[t.Key]
		if known && w.target == t {
			continue
		}
		if known {
			p.remove(w)
		}
		w = &probing{target: t, verdict: health.Verdict{Rise: t.Rise, Fall: t.Fall}, due: now.Add(first())}
		p.targets[t.Key] = w
		heap.Push(&p.waiting, w)
	}
	for key, w := range p.targets {
		if !stays[key] {
			p.remove(w)
		}
	}
	p.nudge()
}

func (p *Prober) remove(w *probing) {
	if w.forget != nil {
		w.forget()
		delete(p.out, w.sequence)
	} else {
		heap.Remove(&p.waiting, w.place)
	}
	delete(p.targets, w.target.Key)
	p.findings = nil
}

// Findings is what is known of each target that has a verdict. It is not to be changed.
func (p *Prober) Findings() map[Key]Finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.findings == nil {
		p.findings = make(map[Key]Finding, len(p.targets))
		for key, w := range p.targets {
			if w.verdict.State != health.Unknown {
				p.findings[key] = w.finding
			}
		}
	}
	return p.findings
}

func (p *Prober) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run probes until ctx ends. It calls changed when a target is not heard any more, or is again.
func (p *Prober) Run(ctx context.Context, changed func()) {
	p.mu.Lock()
	p.changed = changed
	p.mu.Unlock()
	defer p.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		wait, err := p.round()
		if err != nil && err.Error() != said {
			said = err.Error()
			p.log.Warn("probe through VIPs", "err", err)
		}
		timer.Reset(wait)
	}
}

// round sends the probe that is due, if there is one, and returns how long there is nothing to do.
func (p *Prober) round() (time.Duration, error) {
	if err := p.ready(); err != nil {
		return reopen, err
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		return time.Hour, nil // Want and each verdict wake
	}
	w := p.waiting[0]
	next := w.due
	if next.Before(p.free) {
		next = p.free
	}
	if wait := next.Sub(now); wait > 0 {
		return wait, nil
	}
	heap.Pop(&p.waiting)
	p.free = now.Add(apart)
	return apart, p.ask(w, now)
}

// ready opens the wire that is wanted, and closes one that is not.
func (p *Prober) ready() error {
	p.mu.Lock()
	own := p.own
	if len(p.targets) == 0 {
		own = nil
	}
	fits := p.wire != nil && len(own) > 0 && slices.Equal(p.wireOf, own)
	p.mu.Unlock()
	if fits || len(own) == 0 && p.wire == nil {
		return nil
	}
	p.close()
	if len(own) == 0 {
		return nil
	}
	wire, err := p.open(own, p.heard)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wire, p.wireOf = wire, own
	return nil
}

// close ends the wire and what is out on it.
func (p *Prober) close() {
	p.mu.Lock()
	wire := p.wire
	p.wire, p.wireOf = nil, nil
	for _, w := range p.out {
		w.forget()
		p.later(w, reopen)
	}
	p.mu.Unlock()
	if wire != nil {
		_ = wire.Close()
	}
}

// ask sends one probe.
func (p *Prober) ask(w *probing, now time.Time) error {
	from, ok := p.source(w)
	w.began, w.sequence = now, p.unguessed()
	if !ok {
		p.later(w, often)
		return nil
	}
	if err := p.wire.Send(Probe{From: from, To: w.target.VIP, Sequence: w.sequence}, w.target.MAC); err != nil {
		p.later(w, reopen) // that is nobody's silence
		p.wireOf, p.free = nil, now.Add(reopen)
		return err
	}
	p.out[w.sequence] = w
	sequence := w.sequence
	w.forget = health.Bound(w.target.Timeout, func() { go p.missed(sequence) })
	return nil
}

// unguessed is a sequence number that nobody can guess: an answer is known by it.
func (p *Prober) unguessed() uint32 {
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		if n := binary.NativeEndian.Uint32(b[:]); p.out[n] == nil {
			return n
		}
	}
}

func (p *Prober) source(w *probing) (netip.AddrPort, bool) {
	if p.wire == nil {
		return netip.AddrPort{}, false
	}
	return p.wire.Source(w.target.VIP.Addr().Is6())
}

// later puts a probe back into the queue.
func (p *Prober) later(w *probing, in time.Duration) {
	delete(p.out, w.sequence)
	w.forget = nil
	w.due = w.began.Add(in)
	heap.Push(&p.waiting, w)
	p.nudge()
}

// heard takes what came in for an answer: it must acknowledge a probe that is out, and come from where that went.
func (p *Prober) heard(a Answer) {
	p.mu.Lock()
	w := p.out[a.Sequence]
	if w == nil || w.target.VIP != a.From {
		p.mu.Unlock()
		return
	}
	from, ok := p.source(w)
	if !ok || from != a.To {
		p.mu.Unlock()
		return
	}
	w.forget()
	after := p.end(w, true, !a.Refused)
	p.mu.Unlock()
	after()
}

// missed ends a probe that nothing answered in its time.
func (p *Prober) missed(sequence uint32) {
	after := func() {}
	p.mu.Lock()
	if w := p.out[sequence]; w != nil {
		after = p.end(w, false, true)
	}
	p.mu.Unlock()
	after()
}

// end takes a probe's outcome. What it returns is to be done without the lock: with reset, the real server drops what it holds of the probe.
func (p *Prober) end(w *probing, ok, reset bool) func() {
	wire, changed, mac := p.wire, p.changed, w.target.MAC
	back := Probe{To: w.target.VIP, Sequence: w.sequence, Reset: true}
	back.From, _ = p.source(w)
	was := w.verdict.State
	if p.findings = nil; w.verdict.Add(ok) {
		w.finding.State, w.finding.Since = w.verdict.State, w.began
	}
	if ok {
		w.finding.Heard = w.began
	} else {
		w.finding.Missed = w.began
	}
	p.later(w, w.target.pace(w.verdict.Sure()))
	news := w.verdict.State != was && (was == health.Down || w.verdict.State == health.Down)
	if news {
		p.hurry(w.target.VIP)
	}
	return func() {
		if reset && wire != nil {
			_ = wire.Send(back, mac) // the next probe meets the same error, and says so
		}
		if news {
			changed()
		}
	}
}

// hurry has all targets of a VIP and port asked soon: what one's silence means depends on whether others are heard now.
func (p *Prober) hurry(vip netip.AddrPort) {
	soon := time.Now().Add(health.FirstWithin)
	for _, w := range p.targets {
		if w.target.VIP == vip && w.forget == nil && w.due.After(soon) {
			w.due = soon.Add(-first())
			heap.Fix(&p.waiting, w.place)
		}
	}
}
