package announce

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Config says where the daemons are and where they may write.
type Config struct {
	Log      *slog.Logger
	Programs string   // directory of the daemons' programs: /usr/lib/frr on Debian
	Run      string   // directory for their configurations and sockets, made by the supervisor
	User     string   // whom they run as; root would be refused by their own group check
	Guard    []string // command that runs Guard

	Keepalived string // VRRP's program: /usr/sbin/keepalived on Debian
	Pair       string // directory for its files, made by the supervisor: root's own, as the daemon is
}

// Supervisor keeps the daemons of one Spec alive. A daemon that ends is started again, later and later; one whose
// configuration changed is restarted; the others are left alone.
type Supervisor struct {
	cfg  Config
	wake chan struct{}

	mu      sync.Mutex
	want    Spec
	up      []netip.Addr // VIPs that are on the loopback
	running map[string]*daemon
	guard   *guard // only Run touches it
	err     error  // why the daemons could not be prepared
}

// New returns a supervisor that keeps nothing yet.
func New(cfg Config) *Supervisor {
	return &Supervisor{cfg: cfg, wake: make(chan struct{}, 1), running: map[string]*daemon{}}
}

// Want replaces what is kept. It returns at once.
func (s *Supervisor) Want(spec Spec) {
	s.mu.Lock()
	s.want = spec
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Up says which VIPs are on the loopback now: FRR's daemons see it by themselves, VRRP's is told. It returns at once.
func (s *Supervisor) Up(vips []netip.Addr) {
	s.mu.Lock()
	same := slices.Equal(s.up, vips)
	s.up = vips
	s.mu.Unlock()
	if same {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// retryPrepare is how long the supervisor waits after it could not write a configuration.
const retryPrepare = 5 * time.Second

// Run keeps the daemons until ctx ends, then stops them and returns when all have ended.
func (s *Supervisor) Run(ctx context.Context) {
	defer func() {
		s.stop(everyone)
		if s.guard != nil {
			s.guard.stop()
			<-s.guard.done
		}
	}()
	for {
		s.mu.Lock()
		spec, up := s.want, s.up
		s.mu.Unlock()
		vipErr := s.cfg.tellVIPs(spec, up)
		err := errors.Join(vipErr, s.converge(ctx, spec))
		s.mu.Lock()
		changed := err != nil && (s.err == nil || s.err.Error() != err.Error())
		s.err = err
		s.mu.Unlock()
		var again <-chan time.Time
		if err != nil {
			again = time.After(retryPrepare)
			if changed {
				s.cfg.Log.Error("prepare routing daemons", "err", err)
			}
		}
		var unguarded <-chan struct{}
		if s.guard != nil {
			unguarded = s.guard.done
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-again:
		case <-unguarded:
			s.cfg.Log.Error("the routing daemons' guard ended; restart them")
			s.stop(everyone)
			s.guard = nil
		}
	}
}

func everyone(string) bool { return true }

// guarded starts the guard if there is none. It belongs to no context: it ends after the daemons.
func (s *Supervisor) guarded() error {
	if s.guard != nil {
		return nil
	}
	g, err := startGuard(context.Background(), s.cfg.Guard)
	if err != nil {
		return err
	}
	s.guard = g
	return nil
}

// converge stops what is not wanted any more or differently, and starts what is missing, zebra first.
func (s *Supervisor) converge(ctx context.Context, spec Spec) error {
	files, names := Render(spec), spec.Daemons()
	if err := s.retell(ctx, files); err != nil {
		return err
	}
	s.stop(func(name string) bool {
		d := s.running[name]
		// Everything else of FRR's hangs on zebra.
		return files[name] != d.file || name != keepalived && (s.running[zebra] == nil || files[zebra] != s.running[zebra].file)
	})
	if len(names) == 0 {
		return nil
	}
	if err := s.guarded(); err != nil {
		return err
	}
	owner, err := s.prepare(spec)
	if err != nil {
		return err
	}
	for _, name := range names {
		if s.running[name] != nil {
			continue
		}
		d := &daemon{name: name, file: files[name], cfg: s.cfg, group: s.guard.pid, done: make(chan struct{})}
		if err := writeOwned(d.path(".conf"), files[name], owner); err != nil {
			return err
		}
		if name == zebra {
			d.fell = s.renewOthers
			s.cfg.forgetZebra()
		}
		s.mu.Lock()
		s.running[name] = d
		s.mu.Unlock()
		dctx, cancel := context.WithCancel(ctx)
		d.cancel = cancel
		go d.keep(dctx)
	}
	return nil
}

// prepare makes the daemons' directory and says who owns it.
func (s *Supervisor) prepare(spec Spec) (owner, error) {
	if spec.Announce.VRRP != nil {
		return owner{}, prepareDir(s.cfg.Pair, owner{})
	}
	o, err := lookup(s.cfg.User)
	if err != nil {
		return owner{}, err
	}
	return o, prepareDir(s.cfg.Run, o)
}

// renewOthers lets every daemon withdraw what it announces and start again: without zebra it does not hear of VIPs that leave the
// loopback, and it would not find zebra's successor for ten seconds.
func (s *Supervisor) renewOthers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, d := range s.running {
		if name != zebra {
			d.renew()
		}
	}
}

// stop ends the daemons that which names, all at once, and waits for them.
func (s *Supervisor) stop(which func(string) bool) {
	s.mu.Lock()
	var ending []*daemon
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		if which(name) {
			ending = append(ending, s.running[name])
		}
	}
	s.mu.Unlock()
	for _, d := range ending {
		d.cancel()
	}
	for _, d := range ending {
		<-d.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ending {
		delete(s.running, d.name)
	}
}

// waitFor waits a little for a socket to appear. The other daemons would try again by themselves, only later.
func waitFor(ctx context.Context, path string) {
	for range 50 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// forgetZebra removes what a zebra that ended leaves. To the others it would look as if they could connect, and they try again only
// after ten seconds.
func (c Config) forgetZebra() { _ = os.Remove(c.zebraSocket()) }

func (c Config) zebraSocket() string { return filepath.Join(c.Run, "zserv.api") }
