package hostagent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

// What a client may send, and how long it may take to send it.
const (
	maxRequest     = 32 << 20
	requestTimeout = 10 * time.Second
	idleTimeout    = 2 * time.Minute
)

// Group is the group whose members may speak with the daemon, besides root.
const Group = "bladenet"

// Listen makes the daemon's socket. A socket that a dead daemon left is replaced; one that answers is not.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another bladed answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	mode := fs.FileMode(0o600)
	if g, err := user.LookupGroup(Group); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil && os.Chown(path, 0, gid) == nil {
			mode = 0o660
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// Serve answers on l with h until ctx ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, ReadTimeout: requestTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), // whoever knocks on a port does not write our log
	}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true) // one stream a connection, so that a bound on these is one on those
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Figures returns what may be read from afar: /metrics and /healthz.
func (a *Agent) Figures() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", a.metrics)
	mux.HandleFunc("GET /healthz", a.healthz)
	return mux
}

// healthz says whether the loop goes on.
func (a *Agent) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := a.Alive(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n") // a client that went away is not the daemon's failure
}

// mostFollowers is how many clients may follow the journal at a time.
const mostFollowers = 32

// serveEvents writes entries of the journal, a JSON document a line: those after a number, and with follow those that come.
func (a *Agent) serveEvents(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(cmp.Or(r.FormValue("after"), "0"), 10, 64)
	if err != nil {
		http.Error(w, "after: the number of an entry", http.StatusBadRequest)
		return
	}
	follow := r.FormValue("follow") != ""
	if follow {
		if a.followers.Add(1) > mostFollowers {
			a.followers.Add(-1)
			http.Error(w, fmt.Sprintf("%d clients follow the events already", mostFollowers), http.StatusServiceUnavailable)
			return
		}
		defer a.followers.Add(-1)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush, enc := http.NewResponseController(w), json.NewEncoder(w)
	for {
		entries, more := a.Events(after)
		for _, e := range entries {
			after = e.Number
			if enc.Encode(e) != nil {
				return // the client went away
			}
		}
		if flush.Flush() != nil || !follow {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

// read decodes a request; false means that the client has been told why not.
func read(w http.ResponseWriter, r *http.Request, in any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// answer returns a function that writes a value, or an error in place of it.
func answer(w http.ResponseWriter) func(v any, err error) {
	return func(v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // a client that went away is not the daemon's failure
	}
}

// stream runs an operation and writes its events as they come, a JSON document a line; the last says how it ended.
func stream[R any](w http.ResponseWriter, r *http.Request, run func(context.Context, R, func(api.Event)) error) {
	var in R
	if !read(w, r, &in) {
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	begin := time.Now()
	var mu sync.Mutex
	flush := http.NewResponseController(w)
	report := func(e api.Event) {
		mu.Lock()
		defer mu.Unlock()
		e.Time, e.Elapsed = time.Now(), time.Since(begin)
		_ = json.NewEncoder(w).Encode(e)
		if e.Step == nil || e.Took > 0 { // the other steps of a stage, which were done at once, come with the last one
			_ = flush.Flush()
		}
	}
	_ = flush.Flush()
	last := api.Event{Done: true, Message: "done"}
	if err := run(r.Context(), in, report); err != nil {
		last.Error, last.Message = err.Error(), ""
	}
	report(last)
}
