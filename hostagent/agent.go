package hostagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/hostagent/alert"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/journal"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// GCPercent is the runtime's debug.SetGCPercent of a process that is an agent: it is idle nearly always, and what it needs for a pass is its
// blade's memory meanwhile.
const GCPercent = 50

// How long the loop waits: resync when nothing happens, or longer on a large blade, so that looking at it takes a thousandth of a processor, and
// the first and longest pause after a pass that left something to do. After an event it waits as its pace says, so that a burst is one
// pass.
const (
	resync        = 30 * time.Second
	longestResync = 5 * time.Minute
	thrift        = 1000
	firstRetry    = time.Second
	lastRetry     = 30 * time.Second
)

// Links is the blade's VLANs, bridges and ports.
type Links interface {
	Observe(ctx context.Context) (bridges.State, error)
	Apply(ctx context.Context, steps []bridges.Step) error
	Watch(ctx context.Context, wake func()) error
}

// Filter is the blade's packet filter.
type Filter interface {
	Observe(ctx context.Context) (nft.State, error)
	Apply(ctx context.Context, steps []nft.Step) error
	Watch(ctx context.Context, wake func()) error
	Counters(ctx context.Context) (nft.Counters, error)
	Features(ctx context.Context) error
	VIPConntrack(ctx context.Context, vips []netip.Addr) (int, error)
}

// history is the revisions on disk.
type history interface {
	Save(r revision.Revision) (revision.Revision, error)
	Update(r revision.Revision) error
	Load(number int) (revision.Revision, error)
	Latest() (revision.Revision, bool, error)
	Numbers() ([]int, error)
	Restore(r revision.Revision) (lost bool, err error)
	Trim() error
}

// Config is what an Agent works with.
type Config struct {
	Blade   policy.BladeName
	Policy  string // folder of policy files
	State   string // folder of revisions, /var/lib/bladenet
	Links   Links
	Filter  Filter
	Drivers map[policy.Driver]guests.Driver
	Images  guests.Images
	Store   string                                                         // folder of Images, for whoever looks for what is wrong with it; empty: not known
	Dial    func(ctx context.Context, cid uint32) (*channel.Client, error) // a director's helper
	Trace   func(ctx context.Context, what nft.Traced, see func(nft.TraceStep)) error
	Silence time.Duration // a director that answers nothing for so long is started again; 2 min if 0
	Log     *slog.Logger
	Ready   func() // called once: the filter stands, or what stands in its way is known; may be nil
}

// Agent keeps one blade as its revision says. Use New.
type Agent struct {
	cfg       Config
	log       *slog.Logger
	revisions history
	reading   reading
	stopped   *stopped
	spares    spares
	limits    limits
	helpers   *helpers
	insides   *insides
	backoff   guests.Backoff
	order     []stage
	fill      func(ctx context.Context, namespace string, steps []inside.Step) error
	storeLost func(ctx context.Context, wake func()) error
	host      string // root of the host that doctor looks at; empty: the host's own
	journal   *journal.Journal
	meters    *meters
	fights    *fights
	wakeC     chan struct{}
	touched   atomic.Bool     // somebody has changed the filter since the last pass
	life      context.Context // of Run: conversations with directors end with it
	verifyFor time.Duration   // how long a revision may take to verify
	rotateFor time.Duration   // how long a new guest may take to do its work

	passing  sync.Mutex   // one pass at a time; also guards the policy folder
	unkept   string       // why the revision in force is not on disk; guarded by passing
	spawning atomic.Int32 // spawns that may still be undone

	followers atomic.Int32 // clients that follow the journal
	health    health

	mu      sync.Mutex // guards what follows
	now     wanted
	waiting []api.Waiting
	passed  bool                              // a pass has ended since the revision came into force, or a guest was let go
	failed  bool                              // the last pass failed
	reached bool                              // the revision had its way once: what is found from now on is drift
	phases  map[policy.GuestName]guests.Phase // as the last pass found them
	failing map[policy.GuestName]error        // why the last step of a guest failed
}

// wanted is what the agent keeps the blade at.
type wanted struct {
	revision revision.Revision
	blade    policy.Blade
}

// New returns an agent. It reads the newest revision, so that a blade whose policy folder is broken or gone comes up as it was.
func New(cfg Config) (*Agent, error) {
	store, err := revision.Open(filepath.Join(cfg.State, "revisions"))
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: cfg.Log.With("blade", cfg.Blade), revisions: store, wakeC: make(chan struct{}, 1), verifyFor: verifyTimeout, rotateFor: rotationTimeout,
		meters: newMeters(), fights: &fights{each: map[string]*fight{}},
		life: context.Background(), // until Run begins: the socket may answer a moment before
	}
	if a.journal, err = journal.Open(filepath.Join(cfg.State, "journal")); err != nil {
		a.log.Warn("the journal is kept in memory only", "err", err)
	}
	if a.stopped, err = openStopped(filepath.Join(cfg.State, "stopped.json")); err != nil {
		a.log.Error("guests that an operator stopped may start", "err", err)
	}
	for _, dir := range []string{cfg.Policy, cfg.State} {
		if err := revision.Sweep(dir); err != nil {
			a.log.Warn("sweep a folder", "folder", dir, "err", err)
		}
	}
	a.insides = &insides{log: a.log, wake: a.Wake, each: map[policy.GuestName]watched{}}
	a.helpers = &helpers{log: a.log, wake: a.Wake, patience: cmp.Or(cfg.Silence, defaultSilence), dial: cfg.Dial, changed: a.recordRotation, each: map[policy.GuestName]*conversation{}}
	a.order, a.fill, a.storeLost = a.stages(), inside.Apply, a.watchStore
	last, ok, err := store.Latest()
	if err != nil {
		a.log.Error("read revisions", "err", err)
	}
	if !ok {
		return a, nil
	}
	blade, found := a.derive(last.Files)
	if found.HasErrors() {
		return nil, fmt.Errorf("load revision %d: it was right once and is not now: %s", last.Number, found[0].Message)
	}
	a.now = wanted{revision: last, blade: blade}
	a.reached = last.Trial == nil
	return a, nil
}

// Wake asks the loop to look at the blade.
func (a *Agent) Wake() {
	select {
	case a.wakeC <- struct{}{}:
	default:
	}
}

// Run keeps the blade until ctx ends. It leaves the kernel as it is.
func (a *Agent) Run(ctx context.Context) error {
	a.life = ctx
	a.record(api.Entry{Kind: api.Agent, Revision: a.wantedNow().revision.Number, Message: "bladed begins"})
	defer a.end()
	if err := a.finishChange(); err != nil {
		a.log.Error("the policy folder is half changed", "err", err)
	}
	if a.wantedNow().revision.Number == 0 {
		if err := a.adopt(ctx); err != nil {
			a.log.Error("no revision yet, and the policy folder cannot be taken", "err", err)
		}
	}
	a.watch(ctx)
	go a.watchLimits(ctx)
	go (&alert.Sender{Blade: a.cfg.Blade, Current: a.wrong, Targets: a.alertTargets, Log: a.log}).Run(ctx)
	a.resume(ctx)
	a.finishStops(ctx)
	retry := firstRetry
	var pace pace
	for {
		a.expire(ctx)
		begin := processorTime()
		done := a.keep(ctx)
		look := min(max(resync, thrift*(processorTime()-begin)), longestResync)
		pause := look + rand.N(look/4)
		if done {
			retry = firstRetry
		} else {
			pause = retry
			retry = min(retry*2, lastRetry)
		}
		a.health.rest()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(pause, a.untilDeadline(), a.fights.next(time.Now()), a.spares.due(time.Now()))):
		case <-a.wakeC:
			sleep(ctx, pace.next(time.Now()))
			a.afterWord(ctx)
		}
	}
}

// end records that the agent ends.
func (a *Agent) end() {
	a.record(api.Entry{Kind: api.Agent, Message: "bladed ends; the blade stays as it is"})
	if err := a.journal.Close(); err != nil {
		a.log.Warn("journal", "err", err)
	}
}

// watch starts the sources of events. Each only wakes the loop; one that fails is tried again.
func (a *Agent) watch(ctx context.Context) {
	sources := map[string]func(context.Context, func()) error{"links": a.cfg.Links.Watch, "filter": a.cfg.Filter.Watch, "store": a.storeLost}
	for name, d := range a.cfg.Drivers {
		sources[string(name)] = d.Events
	}
	for name, source := range sources {
		wake := a.Wake
		if name == "filter" {
			wake = a.touch
		}
		go func() {
			for ctx.Err() == nil {
				if err := source(ctx, wake); err != nil && ctx.Err() == nil {
					a.log.Warn("watch", "subsystem", name, "err", err)
				}
				sleep(ctx, lastRetry)
			}
		}()
	}
}

// keep does one pass for the revision in force, and says whether nothing is left to do.
func (a *Agent) keep(ctx context.Context) bool {
	a.passing.Lock()
	defer a.passing.Unlock()
	err := a.pass(ctx, nil) // logged and noted where it failed
	a.mu.Lock()
	defer a.mu.Unlock()
	return err == nil && len(a.waiting) == 0 && a.unkept == ""
}

// pass brings the blade to the revision in force. The caller holds passing.
func (a *Agent) pass(ctx context.Context, report func(api.Event)) error {
	return a.passFrom(ctx, &pass{report: report})
}

// passFrom is a pass that begins with what p has observed.
func (a *Agent) passFrom(ctx context.Context, p *pass) error {
	defer a.health.ready(a.cfg.Ready)
	now := a.wantedNow()
	if now.revision.Number == 0 {
		a.health.beat("no revision")
		return nil
	}
	a.restore(now)
	p.blade, p.apply = now.blade, true
	out := a.walk(ctx, p)
	a.meters.passed()
	for _, step := range a.fights.over(time.Now()) {
		a.record(api.Entry{Kind: api.Settled, Subsystem: step.Subsystem, Object: step.Object, Guest: step.Guest, Message: "nobody else changes it any more"})
	}
	before := a.note(out)
	a.recordWaiting(before, out.waiting)
	return out.err
}

// note keeps what a pass left to do and returns what was waiting before, which keeps its time.
func (a *Agent) note(out outcome) (before []api.Waiting) {
	a.mu.Lock()
	defer a.mu.Unlock()
	since := map[string]time.Time{}
	for _, w := range a.waiting {
		since[key(w.Step)] = w.Since
	}
	for i := range out.waiting {
		w := &out.waiting[i]
		w.Since = since[key(w.Step)]
		if w.Since.IsZero() {
			w.Since = time.Now()
		}
	}
	before = a.waiting
	a.waiting, a.passed, a.failed, a.reached = out.waiting, true, out.err != nil, true
	return before
}

func (a *Agent) wantedNow() wanted {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// derive checks files, their expectations too, and derives this blade. Without errors the blade is whole.
func (a *Agent) derive(files []policy.File) (policy.Blade, policy.Diagnostics) {
	fleet, found := a.reading.load(files)
	if !found.HasErrors() {
		found = append(found, filter.CheckExpectations(fleet)...)
	}
	if found.HasErrors() {
		return policy.Blade{}, found
	}
	blade, err := a.reading.derive(fleet, a.cfg.Blade)
	if err != nil {
		found = append(found, policy.Diagnostic{
			Severity: policy.SeverityError, Message: err.Error(), Pos: policy.Pos{File: a.cfg.Policy},
			Hint: "the policy must name this blade: bladed --blade NAME, or the host's name",
		})
	}
	return blade, found
}

// check derives this blade from files whose mistakes, if there are any, are reported and end the operation.
func (a *Agent) check(files []policy.File, report func(api.Event)) (policy.Blade, error) {
	blade, found := a.derive(files)
	return blade, refuse(found, report)
}

// refuse reports findings that stand in the way.
func refuse(found policy.Diagnostics, report func(api.Event)) error {
	if !found.HasErrors() {
		return nil
	}
	report(api.Event{Diagnostics: found})
	return errDiagnostics
}

// errDiagnostics ends an operation whose files have mistakes; they have been reported.
var errDiagnostics = errors.New("the policy has mistakes; nothing was applied")

// adopt makes the policy folder the first revision. The caller does not hold passing.
func (a *Agent) adopt(ctx context.Context) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	return a.enforceFolder("policy folder at first start", func(e api.Event) {
		for _, d := range e.Diagnostics {
			level := slog.LevelError
			if d.Severity == policy.SeverityWarning {
				level = slog.LevelWarn
			}
			a.log.Log(ctx, level, "policy", "place", d.Pos.String(), "finding", d.Message)
		}
	})
}

// enforceFolder checks the policy folder and makes it the revision in force. The caller holds passing.
func (a *Agent) enforceFolder(note string, report func(api.Event)) error {
	files, err := policy.ReadDir(a.cfg.Policy)
	if err != nil {
		return err
	}
	blade, err := a.check(files, report)
	if err != nil {
		return err
	}
	return a.enforce(revision.Revision{Note: note, Files: files}, blade, report)
}

// enforce makes a draft, whose files were checked, and the blade derived from them the revision in force; the blade follows at the
// next pass. Files that are already in force make no new revision. The caller holds passing.
func (a *Agent) enforce(draft revision.Revision, blade policy.Blade, report func(api.Event)) error {
	now := a.wantedNow()
	if now.revision.Number > 0 && sameFiles(now.revision.Files, draft.Files) {
		return nil
	}
	draft.Time = time.Now()
	r, err := a.revisions.Save(draft)
	if err != nil {
		return err
	}
	if err := a.revisions.Trim(); err != nil {
		a.log.Warn("revisions", "err", err)
	}
	a.inForce(wanted{revision: r, blade: blade})
	report(api.Event{Message: fmt.Sprintf("revision %d in force", r.Number)})
	return nil
}

// inForce makes w what the passes from now on bring the blade to.
func (a *Agent) inForce(w wanted) {
	a.mu.Lock()
	a.now, a.passed, a.reached = w, false, false
	a.mu.Unlock()
	a.fights.reset()
	a.record(api.Entry{Kind: api.Revised, Revision: w.revision.Number, Message: "in force: " + w.revision.Note})
	a.log.Info("revision in force", "revision", w.revision.Number, "note", w.revision.Note)
}

func sameFiles(x, y []policy.File) bool {
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i].Name != y[i].Name || string(x[i].Data) != string(y[i].Data) {
			return false
		}
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
