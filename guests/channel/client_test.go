package channel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// echo is a handler that remembers what it was asked.
type echo struct {
	mu      sync.Mutex
	applied []string
	reboots int
	block   chan struct{}
}

func (e *echo) Apply(ctx context.Context, a Apply) (Status, error) {
	if e.block != nil {
		select {
		case <-e.block:
		case <-ctx.Done():
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.applied = append(e.applied, a.Revision)
	if a.Revision == "bad" {
		return Status{}, errors.New("cannot\x1b have this")
	}
	return Status{Revision: a.Revision}, nil
}

func (e *echo) Status(context.Context, Query) (Status, error) { return status(), nil }

func (e *echo) Shutdown(_ context.Context, s Shutdown) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.Reboot {
		e.reboots++
	}
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve starts a server on a socket and returns how to reach it.
func serve(t *testing.T, h Handler) func() net.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Server{Handler: h, Software: "guest", Log: quiet()}.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return func() net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
}

func TestConversation(t *testing.T) {
	h := &echo{}
	ctx := t.Context()
	c, err := NewClient(ctx, serve(t, h)(), "host")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := c.Apply(ctx, Apply{Revision: "one"}); err != nil || s.Revision != "one" {
		t.Errorf("apply: %+v, %v", s, err)
	}
	_, err = c.Apply(ctx, Apply{Revision: "bad"})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "cannot? have this") {
		t.Errorf("apply bad: %v", err)
	}
	got, err := c.Status(ctx, Query{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(status(), got, addresses); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := c.Shutdown(ctx, Shutdown{Reboot: true}); err != nil || h.reboots != 1 {
		t.Errorf("shutdown: %v, %d reboots", err, h.reboots)
	}
}

func TestCallsGoOneAfterAnother(t *testing.T) {
	h := &echo{}
	c, err := NewClient(t.Context(), serve(t, h)(), "host")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Apply(t.Context(), Apply{Revision: "r"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(h.applied) != 20 {
		t.Errorf("%d applied", len(h.applied))
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	h := &echo{block: make(chan struct{})}
	defer close(h.block)
	c, err := NewClient(t.Context(), serve(t, h)(), "host")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Apply(ctx, Apply{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := c.Status(t.Context(), Query{}); err == nil || !strings.Contains(err.Error(), "connection is closed") {
		t.Errorf("after a call that was cut: %v", err)
	}
}

// TestHostileGuest holds that a guest's answers end the conversation, never the host's patience.
func TestHostileGuest(t *testing.T) {
	hello := func() string {
		var b bytes.Buffer
		if err := EncodeReply(&b, Reply{ID: 1, Hello: &Hello{Version: Version}}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}()
	old := string(frame(`{"id":1,"hello":{"version":7}}`))
	for name, c := range map[string]struct{ says, want string }{
		"says nothing":               {"", "deadline exceeded"},
		"says half a frame":          {hello + "\x00\x00\x00\x09{", "deadline exceeded"},
		"speaks another version":     {old, "speaks version 7"},
		"greets without a hello":     {string(frame(`{"id":1}`)), "without a hello"},
		"answers another request":    {hello + string(frame(`{"id":1,"status":{}}`)), "reply to request 1"},
		"answers without a status":   {hello + string(frame(`{"id":2}`)), "without a status"},
		"answers too much":           {hello + "\x7f\xff\xff\xff", "length 2147483647"},
		"answers garbage":            {hello + string(frame("\x1b\x1b")), "decode frame"},
		"answers more than is asked": {hello + string(frame(`{"id":2,"hello":{}}`)) + hello, "without a status"},
	} {
		t.Run(name, func(t *testing.T) {
			host, guest := net.Pipe()
			defer guest.Close()
			go func() { _, _ = io.Copy(io.Discard, guest) }()
			go func() { _, _ = io.WriteString(guest, c.says) }()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			client, err := NewClient(ctx, host, "host")
			if err == nil {
				_, err = client.Status(ctx, Query{})
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			wantPrintable(t, err.Error())
		})
	}
}

// TestServerRefuses holds what the guest's end answers to a peer that does not keep to the protocol.
func TestServerRefuses(t *testing.T) {
	dial := serve(t, &echo{})
	for name, c := range map[string]struct{ says, want string }{
		"no hello":        {string(frame(`{"id":1,"status":{}}`)), "no hello yet"},
		"another version": {string(frame(`{"id":1,"hello":{"version":9}}`)), "host speaks version 9"},
		"garbage":         {string(frame(`x`)), "decode frame"},
		"too much":        {"\x7f\xff\xff\xff", "length 2147483647"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial()
			defer conn.Close()
			if _, err := io.WriteString(conn, c.says); err != nil {
				t.Fatal(err)
			}
			rep, err := DecodeReply(conn)
			if err != nil || !strings.Contains(rep.Error, c.want) {
				t.Errorf("reply %+v, error %v, want one with %q", rep, err, c.want)
			}
		})
	}
}
