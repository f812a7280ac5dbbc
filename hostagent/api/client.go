package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// Client speaks to a daemon, over its Unix socket or over TLS.
type Client struct {
	socket string // empty over TLS
	base   string // URL without a path
	http   *http.Client
}

// NewClient returns a client for the socket. It does not connect.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, base: "http://bladed", http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// NewRemoteClient returns a client for the daemon of another host, by its TCP address. It does not connect.
func NewRemoteClient(address string, c *tls.Config) *Client {
	return &Client{base: "https://" + address, http: &http.Client{Transport: &http.Transport{TLSClientConfig: c, TLSHandshakeTimeout: 10 * time.Second}}}
}

// Status asks what the blade looks like.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "status", nil, &s)
}

// Top asks the same, and that directors count what each real server has to do, for the next ten seconds.
func (c *Client) Top(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "status?count=1", nil, &s)
}

// Plan asks what would change.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (Plan, error) {
	var p Plan
	return p, c.call(ctx, http.MethodPost, "plan", r, &p)
}

// Apply makes the policy folder so; each event is handed to see as it comes.
func (c *Client) Apply(ctx context.Context, r ApplyRequest, see func(Event)) error {
	return c.stream(ctx, "apply", r, see)
}

// Confirm keeps the revision that waits to be confirmed.
func (c *Client) Confirm(ctx context.Context, r ConfirmRequest) (Confirmed, error) {
	var out Confirmed
	return out, c.call(ctx, http.MethodPost, "confirm", r, &out)
}

// Rollback makes an earlier revision so.
func (c *Client) Rollback(ctx context.Context, r RollbackRequest, see func(Event)) error {
	return c.stream(ctx, "rollback", r, see)
}

// Revisions lists the revisions.
func (c *Client) Revisions(ctx context.Context) (Revisions, error) {
	var out Revisions
	return out, c.call(ctx, http.MethodGet, "revisions", nil, &out)
}

// Revision asks for one revision with its files.
func (c *Client) Revision(ctx context.Context, number int) (Revision, error) {
	var out Revision
	return out, c.call(ctx, http.MethodGet, "revisions/"+strconv.Itoa(number), nil, &out)
}

// Spawn makes new guests and returns when they answer.
func (c *Client) Spawn(ctx context.Context, r SpawnRequest, see func(Event)) error {
	return c.stream(ctx, "spawn", r, see)
}

// Power starts, stops or restarts a guest, by the verb of that name.
func (c *Client) Power(ctx context.Context, verb string, r PowerRequest, see func(Event)) error {
	return c.stream(ctx, verb, r, see)
}

// Drain lets a guest take no new connections, or take them again.
func (c *Client) Drain(ctx context.Context, r DrainRequest, see func(Event)) error {
	return c.stream(ctx, "drain", r, see)
}

// Destroy removes guests whole.
func (c *Client) Destroy(ctx context.Context, r DestroyRequest, see func(Event)) error {
	return c.stream(ctx, "destroy", r, see)
}

// Doctor asks what is wrong with the host.
func (c *Client) Doctor(ctx context.Context, r DoctorRequest) (Doctor, error) {
	var out Doctor
	return out, c.call(ctx, http.MethodPost, "doctor", r, &out)
}

// Events hands entries of the journal to see, oldest first; with Follow until ctx ends or the daemon does.
func (c *Client) Events(ctx context.Context, r EventsRequest, see func(Entry) error) error {
	path := "events?after=" + strconv.FormatUint(r.After, 10)
	if r.Follow {
		path += "&follow=1"
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var e Entry
		switch err := dec.Decode(&e); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF) && !r.Follow:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("bladed has ended: its events end here")
		case err != nil:
			return fmt.Errorf("read events: %w", err)
		}
		if err := see(e); err != nil {
			return err
		}
	}
}

// Log hands what a guest has printed to read, as the guest printed it; with Follow it ends when ctx does.
func (c *Client) Log(ctx context.Context, r LogRequest, read func(io.Reader) error) error {
	path := fmt.Sprintf("guests/%s/log?lines=%d", url.PathEscape(string(r.Name)), r.Lines)
	if r.Follow {
		path += "&follow=1"
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := read(resp.Body); ctx.Err() == nil {
		return err
	}
	return nil
}

// Metrics hands the figures for Prometheus to read.
func (c *Client) Metrics(ctx context.Context, read func(io.Reader) error) error {
	resp, err := c.ask(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return read(resp.Body)
}

// Trace follows packets; each is handed to see with its way as it comes.
func (c *Client) Trace(ctx context.Context, r TraceRequest, see func(Event)) error {
	return c.stream(ctx, "trace", r, see)
}

func (c *Client) call(ctx context.Context, method, verb string, in, out any) error {
	resp, err := c.do(ctx, method, verb, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer to %s: %w", verb, err)
	}
	return nil
}

func (c *Client) stream(ctx context.Context, verb string, in any, see func(Event)) error {
	resp, err := c.do(ctx, http.MethodPost, verb, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var e Event
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("%s: bladed ended before it was done: see `bladectl status` for what is there now", verb)
			}
			return fmt.Errorf("read events of %s: %w", verb, err)
		}
		see(e)
		if e.Done {
			if e.Error != "" {
				return errors.New(e.Error)
			}
			return nil
		}
	}
}

// do sends one request. The caller closes the body.
func (c *Client) do(ctx context.Context, method, verb string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", verb, err)
		}
		body = bytes.NewReader(b)
	}
	return c.ask(ctx, method, "/"+Version+"/"+verb, body)
}

// ask sends a request to a path.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return nil, errors.New(string(bytes.TrimSpace(text)))
}

// AwayError says that no daemon answers, and the remedy.
type AwayError struct{ sentence error }

func (e *AwayError) Error() string { return e.sentence.Error() }
func (e *AwayError) Unwrap() error { return e.sentence }

// explain turns the two ways in which a daemon is out of reach into sentences with a remedy.
func (c *Client) explain(err error) error {
	if c.socket == "" {
		return fmt.Errorf("ask bladed: %w", err)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &AwayError{fmt.Errorf("bladed does not run here (no socket %s): start it with `systemctl start bladed`", c.socket)}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission on %s: be root or a member of group bladenet", c.socket)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &AwayError{fmt.Errorf("bladed does not answer on %s (%w): start it with `systemctl start bladed`", c.socket, op.Err)}
	}
	return err
}
