package kvm

import (
	"context"
	"fmt"
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// loop is libvirt's own event loop, run on one goroutine for the rest of the process. libvirt has one a process and wants it before the
// first connection; it cannot be taken away again.
var loop struct {
	sync.Mutex
	runs bool
}

func eventLoop() error {
	loop.Lock()
	defer loop.Unlock()
	if loop.runs {
		return nil
	}
	if err := libvirt.EventRegisterDefaultImpl(); err != nil {
		return err // without libvirt on this blade; it may be installed later
	}
	loop.runs = true
	go func() {
		for {
			if err := libvirt.EventRunDefaultImpl(); err != nil {
				time.Sleep(time.Second) // a loop that cannot run must not spin
			}
		}
	}()
	return nil
}

// maxLost is how many calls may be left behind unanswered before new ones are refused without trying.
const maxLost = 4

// session is one connection. It is closed when libvirt says that it broke and the last call on it has come back: closing under a
// call or a callback crashes.
type session struct {
	conn     *libvirt.Connect
	callback int
	calls    int
	broken   bool
}

// link is the way to libvirtd: at most one session, made when it is needed.
type link struct {
	uri     string
	changed func() // a domain or the connection changed; must not block

	mu      sync.Mutex
	session *session
	opening chan struct{} // closed when the attempt under way has ended
	openErr error
	lost    int // calls whose callers stopped waiting
}

// call runs f with the connection and returns when f does or the context ends, whichever comes first. Then f goes on by itself until
// libvirt lets it go, and nothing that it does is used.
func (l *link) call(ctx context.Context, f func(*libvirt.Connect) error) error {
	s, err := l.acquire(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := f(s.conn)
		l.release(s)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		l.mu.Lock()
		l.lost++
		l.mu.Unlock()
		go func() {
			<-done
			l.mu.Lock()
			l.lost--
			l.mu.Unlock()
		}()
		return fmt.Errorf("libvirtd does not answer: %w", context.Cause(ctx))
	}
}

// acquire returns the session, making one if there is none. However many ask, one attempt is under way at a time.
func (l *link) acquire(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		if l.lost >= maxLost {
			l.mu.Unlock()
			return nil, fmt.Errorf("libvirtd does not answer: %d earlier calls still wait", maxLost)
		}
		if s := l.session; s != nil && !s.broken {
			s.calls++
			l.mu.Unlock()
			return s, nil
		}
		opening := l.opening
		if opening == nil {
			opening = make(chan struct{})
			l.opening = opening
			go l.open(opening)
		}
		l.mu.Unlock()
		select {
		case <-opening:
		case <-ctx.Done():
			return nil, fmt.Errorf("libvirtd does not answer: %w", context.Cause(ctx))
		}
		l.mu.Lock()
		err := l.openErr
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

func (l *link) open(opening chan struct{}) {
	s, err := l.connect()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.openErr = err
	if err == nil {
		l.session = s
	}
	l.opening = nil
	close(opening)
}

func (l *link) connect() (*session, error) {
	if err := eventLoop(); err != nil {
		return nil, fmt.Errorf("load libvirt: %w: apt-get install libvirt-daemon-system", sentence(err))
	}
	conn, err := libvirt.NewConnect(l.uri)
	if err != nil {
		return nil, fmt.Errorf("libvirtd cannot be reached at %s (%w): systemctl start libvirtd", l.uri, sentence(err))
	}
	s := &session{conn: conn}
	drop := func(err error) (*session, error) {
		_, _ = conn.Close()
		return nil, fmt.Errorf("connect to libvirtd (%s): %w", l.uri, sentence(err))
	}
	// A daemon that is stopped or hangs is found after 15 s without an answer, and then every call on the connection fails.
	if err := conn.SetKeepAlive(5, 2); err != nil {
		return drop(err)
	}
	if s.callback, err = conn.DomainEventLifecycleRegister(nil, func(*libvirt.Connect, *libvirt.Domain, *libvirt.DomainEventLifecycle) {
		l.changed()
	}); err != nil {
		return drop(err)
	}
	if err := conn.RegisterCloseCallback(func(*libvirt.Connect, libvirt.ConnectCloseReason) { l.broke(s) }); err != nil {
		return drop(err)
	}
	return s, nil
}

// broke is called by libvirt's event loop, which must not be held up.
func (l *link) broke(s *session) {
	l.mu.Lock()
	s.broken = true
	if l.session == s {
		l.session = nil
	}
	idle := s.calls == 0
	l.mu.Unlock()
	if idle {
		go closeSession(s)
	}
	l.changed()
}

func (l *link) release(s *session) {
	l.mu.Lock()
	s.calls--
	last := s.broken && s.calls == 0
	l.mu.Unlock()
	if last {
		closeSession(s)
	}
}

// closeSession takes the callbacks off first: libvirt may otherwise call into what was freed.
func closeSession(s *session) {
	_ = s.conn.DomainEventDeregister(s.callback)
	_ = s.conn.UnregisterCloseCallback()
	_, _ = s.conn.Close()
}

// shut ends the session, if there is one, once its calls have come back.
func (l *link) shut() {
	l.mu.Lock()
	s := l.session
	l.session = nil
	idle := false
	if s != nil {
		s.broken = true
		idle = s.calls == 0
	}
	l.mu.Unlock()
	if idle {
		closeSession(s)
	}
}

// sentence keeps of a libvirt error its message: its numbers are for programs, which still find them by errors.Is.
func sentence(err error) error {
	if e, ok := err.(libvirt.Error); ok && e.Message != "" {
		return answer{e}
	}
	return err
}

// answer is an error of libvirt that reads as its message.
type answer struct{ cause libvirt.Error }

func (a answer) Error() string { return a.cause.Message }
func (a answer) Unwrap() error { return a.cause }
