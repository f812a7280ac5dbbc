package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// callTimeout bounds a call whose context has no deadline.
const callTimeout = 30 * time.Second

// ErrRefused is in the chain of an error that the guest itself answered with: the connection is still good.
var ErrRefused = errors.New("guest refused")

// Client is the host's end of one connection to one guest. Its calls may come from several goroutines; they go one after
// another. After an error without ErrRefused the connection is closed and every further call fails.
type Client struct {
	mu   sync.Mutex
	conn net.Conn
	last uint64
	dead error
}

// NewClient says hello over conn and owns it from then on, also when it fails.
func NewClient(ctx context.Context, conn net.Conn, software string) (*Client, error) {
	c := &Client{conn: conn}
	rep, err := c.call(ctx, Request{Hello: &Hello{Version: Version, Software: software}})
	if err == nil && rep.Hello == nil {
		err = errors.New("reply without a hello")
	}
	if err == nil && rep.Hello.Version != Version {
		err = fmt.Errorf("guest speaks version %d, this host %d", rep.Hello.Version, Version)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet guest: %w", err)
	}
	return c, nil
}

// Apply sends the guest its wanted state and returns what it says of itself afterwards. A guest that could not reach the
// state says so in Status.Error; an error means that it was not asked, or did not understand.
func (c *Client) Apply(ctx context.Context, a Apply) (Status, error) {
	return c.status(ctx, "apply", Request{Apply: &a})
}

// Status asks the guest how it is.
func (c *Client) Status(ctx context.Context, q Query) (Status, error) {
	return c.status(ctx, "status", Request{Status: &q})
}

// Shutdown asks the guest to power off or to reboot. That it answers says only that it is about to.
func (c *Client) Shutdown(ctx context.Context, s Shutdown) error {
	if _, err := c.call(ctx, Request{Shutdown: &s}); err != nil {
		return fmt.Errorf("ask guest for shutdown: %w", err)
	}
	return nil
}

// Close ends the connection. A call under way returns with an error.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) status(ctx context.Context, what string, req Request) (Status, error) {
	rep, err := c.call(ctx, req)
	if err == nil && rep.Status == nil {
		err = errors.New("reply without a status")
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask guest for %s: %w", what, err)
	}
	return *rep.Status, nil
}

// call sends one request and reads its reply, all before ctx ends.
func (c *Client) call(ctx context.Context, req Request) (Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return Reply{}, fmt.Errorf("connection is closed: %w", c.dead)
	}
	rep, err := c.exchange(ctx, req)
	if err != nil {
		// Half a frame may be on its way: nothing after it could be told from garbage.
		c.dead = err
		_ = c.conn.Close()
		return Reply{}, err
	}
	if rep.Error != "" {
		return Reply{}, fmt.Errorf("%w: %s", ErrRefused, rep.Error)
	}
	return rep, nil
}

func (c *Client) exchange(ctx context.Context, req Request) (Reply, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(callTimeout)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return Reply{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	c.last++
	req.ID = c.last
	err := EncodeRequest(c.conn, req)
	var rep Reply
	if err == nil {
		rep, err = DecodeReply(c.conn)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return Reply{}, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Reply{}, context.DeadlineExceeded
	case errors.Is(err, io.EOF):
		return Reply{}, fmt.Errorf("guest hung up: %w", err)
	case err != nil:
		return Reply{}, err
	case rep.ID != req.ID:
		return Reply{}, fmt.Errorf("reply to request %d, want %d", rep.ID, req.ID)
	}
	return rep, nil
}
