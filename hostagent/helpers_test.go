package hostagent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

// helper stands for bladeguest: it takes what it is given and can be made to refuse.
type helper struct {
	mu      sync.Mutex
	applied []string
	refuse  error
}

func (h *helper) Apply(_ context.Context, a channel.Apply) (channel.Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return channel.Status{}, h.refuse
	}
	h.applied = append(h.applied, a.Revision)
	return channel.Status{Guest: a.Guest, Revision: a.Revision}, nil
}

func (h *helper) Status(context.Context, channel.Query) (channel.Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := channel.Status{Guest: "d1"}
	if n := len(h.applied); n > 0 {
		s.Revision = h.applied[n-1]
	}
	return s, nil
}

func (h *helper) Shutdown(context.Context, channel.Shutdown) error { return nil }

func (h *helper) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.applied)
}

// dialer connects to the helper through a pipe; fail makes the next calls fail.
type dialer struct {
	h    *helper
	fail func() error
}

func (d *dialer) dial(ctx context.Context, _ uint32) (*channel.Client, error) {
	if d.fail != nil {
		if err := d.fail(); err != nil {
			return nil, err
		}
	}
	host, guest := net.Pipe()
	l := &oneConn{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- guest
	go func() {
		_ = channel.Server{Handler: d.h, Software: "test", Log: slog.New(slog.DiscardHandler)}.Serve(context.Background(), l)
	}()
	return channel.NewClient(ctx, host, "test")
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

func director1(weight int) policy.Guest {
	return policy.Guest{
		Name: "d1", Role: policy.RoleDirector, Driver: policy.DriverKVM, CID: 70000,
		Balancer: &policy.Balancer{Services: []policy.VirtualService{{Service: "www", Destinations: []policy.Destination{{Guest: "www-1", Weight: weight}}}}},
	}
}

func conversations(t *testing.T, d *dialer) *helpers {
	t.Helper()
	return &helpers{log: slog.New(slog.DiscardHandler), wake: func() {}, patience: time.Hour, dial: d.dial, changed: func(policy.GuestName, channel.Status, channel.Status) {}, each: map[policy.GuestName]*conversation{}}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after 10 s", what)
		}
	}
}

func TestADirectorGetsItsStateOnceAndEachChange(t *testing.T) {
	h := &helper{}
	ds := conversations(t, &dialer{h: h})
	ds.want(t.Context(), []policy.Guest{director1(100)})
	inForce := func() bool { a, _ := ds.last("d1"); return a.inForce }
	until(t, "first state in force", inForce)
	ds.want(t.Context(), []policy.Guest{director1(100)})
	time.Sleep(helperPoll + 100*time.Millisecond)
	if n := h.count(); n != 1 {
		t.Errorf("an unchanged state was handed over %d times, want once", n)
	}
	h.mu.Lock() // it cannot answer yet
	ds.want(t.Context(), []policy.Guest{director1(50)})
	if a, _ := ds.last("d1"); a.inForce {
		t.Error("the old state counts as the new one")
	}
	h.mu.Unlock()
	until(t, "second state in force", inForce)
	if n := h.count(); n != 2 {
		t.Errorf("states handed over: %d, want 2", n)
	}
}

func TestADirectorThatComesLateGetsItsState(t *testing.T) {
	h := &helper{}
	var mu sync.Mutex
	tries := 0
	d := &dialer{h: h, fail: func() error {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries < 3 {
			return errors.New("connection reset by peer")
		}
		return nil
	}}
	ds := conversations(t, d)
	ds.want(t.Context(), []policy.Guest{director1(100)})
	until(t, "an error is told", func() bool { a, _ := ds.last("d1"); return a.err != nil })
	until(t, "state in force", func() bool { a, _ := ds.last("d1"); return a.inForce })
}

func TestADirectorThatRefusesIsNotInForce(t *testing.T) {
	ds := conversations(t, &dialer{h: &helper{refuse: errors.New("no room on the disk")}})
	ds.want(t.Context(), []policy.Guest{director1(100)})
	until(t, "the refusal is told", func() bool { a, _ := ds.last("d1"); return a.err != nil })
	if a, _ := ds.last("d1"); a.inForce {
		t.Error("a refused state counts as in force")
	}
}

func TestADirectorThatIsGoneIsForgotten(t *testing.T) {
	ds := conversations(t, &dialer{h: &helper{}})
	ds.want(t.Context(), []policy.Guest{director1(100)})
	ds.want(t.Context(), nil)
	if _, ok := ds.last("d1"); ok {
		t.Error("the conversation goes on without a director")
	}
}

func TestRealServersAreReadyWhenEveryDirectorSendsToThem(t *testing.T) {
	b := director1(100).Balancer
	for _, c := range []struct {
		name    string
		status  channel.Status
		have    int
		missing string
	}{
		{"not listed", channel.Status{}, 0, ""},
		{"in rotation", channel.Status{Services: []channel.ServiceStatus{{Destinations: []channel.DestinationStatus{{Guest: "www-1", Weight: 100}}}}}, 1, ""},
		{"down", channel.Status{Services: []channel.ServiceStatus{{Destinations: []channel.DestinationStatus{{Guest: "www-1", Reason: "refused"}}}}}, 0, "refused"},
		{"another's", channel.Status{Services: []channel.ServiceStatus{{Destinations: []channel.DestinationStatus{{Guest: "www-2", Weight: 1}}}}}, 0, ""},
	} {
		if have, missing := weighted(c.status, "www-1"); have != c.have || missing != c.missing {
			t.Errorf("%s: weighted = %d, %q; want %d, %q", c.name, have, missing, c.have, c.missing)
		}
	}
	if got := placesOf(b, "www-1"); got != 1 {
		t.Errorf("placesOf = %d, want 1", got)
	}
	if got := placesOf(nil, "www-1"); got != 0 {
		t.Errorf("placesOf of no balancer = %d, want 0", got)
	}
}

func TestSettleWaitsForDirectorsThatAnswerOnly(t *testing.T) {
	ds := conversations(t, &dialer{h: &helper{}})
	begin := time.Now()
	ds.want(t.Context(), []policy.Guest{director1(100)})
	ds.settle(t.Context()) // it has not answered yet: it is not waited for
	until(t, "state in force", func() bool { a, _ := ds.last("d1"); return a.inForce })
	ds.want(t.Context(), []policy.Guest{director1(50)})
	ds.settle(t.Context())
	if a, _ := ds.last("d1"); !a.inForce {
		t.Error("settle returned before the state was in force")
	}
	if took := time.Since(begin); took > settleTimeout {
		t.Errorf("settle took %s", took)
	}
}

// A real server that is a virtual machine gets its state over a channel of its own, without a balancer; a container has no helper.
func TestAMachineGetsItsState(t *testing.T) {
	h := &helper{}
	ds := conversations(t, &dialer{h: h})
	machine := policy.Guest{Name: "www-k", Role: policy.RoleRealServer, Driver: policy.DriverKVM, CID: 70001, Inside: policy.Inside{Hostname: "www-k"}}
	box := policy.Guest{Name: "www-1", Role: policy.RoleRealServer, Driver: policy.DriverLXC}
	ds.want(t.Context(), []policy.Guest{machine, box})
	until(t, "state in force", func() bool { a, _ := ds.last("www-k"); return a.inForce })
	if n := h.count(); n != 1 {
		t.Errorf("a state was handed over %d times, want once", n)
	}
	if _, ok := ds.last("www-1"); ok {
		t.Error("somebody speaks with a container")
	}
	machine.Inside.Hostname = "other"
	ds.want(t.Context(), []policy.Guest{machine})
	if ds.behind() {
		t.Error("the removal of a guest would wait for a real server")
	}
}
