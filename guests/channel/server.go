package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Bounds of the guest's end.
const (
	maxConns    = 4
	idleTimeout = 10 * time.Minute
	sendTimeout = 10 * time.Second
)

// Handler is what answers inside the guest. An error becomes the reply's error text.
type Handler interface {
	Apply(ctx context.Context, a Apply) (Status, error)
	Status(ctx context.Context, q Query) (Status, error)
	Shutdown(ctx context.Context, s Shutdown) error
}

// Server answers a host's requests inside a guest.
type Server struct {
	Handler  Handler
	Software string
	Log      *slog.Logger
}

// Serve accepts connections of l until ctx ends or l fails; it owns l. No more than four connections are served at once; the
// others wait. When ctx ends it closes them all, waits for their handlers and returns nil.
func (s Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()

	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept host: %w", err)
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, conn)
		})
	}
}

func (s Server) serveConn(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	greeted := false
	for {
		_ = conn.SetDeadline(time.Now().Add(idleTimeout))
		req, err := DecodeRequest(conn)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return
		}
		rep := Reply{ID: req.ID}
		switch {
		case err != nil:
			rep.Error = err.Error()
		case req.Hello != nil && req.Hello.Version != Version:
			rep.Error = fmt.Sprintf("host speaks version %d, this guest %d", req.Hello.Version, Version)
		case req.Hello != nil:
			greeted = true
			rep.Hello = &Hello{Version: Version, Software: s.Software}
		case !greeted:
			rep.Error = "no hello yet"
		default:
			s.answer(ctx, req, &rep)
		}
		_ = conn.SetDeadline(time.Now().Add(sendTimeout))
		if sendErr := EncodeReply(conn, rep); sendErr != nil || err != nil {
			s.Log.Warn("drop connection of host", "err", errors.Join(err, sendErr))
			return
		}
	}
}

func (s Server) answer(ctx context.Context, req Request, rep *Reply) {
	var status Status
	var err error
	switch {
	case req.Apply != nil:
		status, err = s.Handler.Apply(ctx, *req.Apply)
		rep.Status = &status
	case req.Status != nil:
		status, err = s.Handler.Status(ctx, *req.Status)
		rep.Status = &status
	case req.Shutdown != nil:
		err = s.Handler.Shutdown(ctx, *req.Shutdown)
	}
	if err != nil {
		rep.Error, rep.Status = err.Error(), nil
	}
}
