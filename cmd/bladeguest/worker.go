package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director"
	"github.com/bladenet/bladenet/guests/director/announce"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/guests/director/reach"
	"github.com/bladenet/bladenet/guests/server"
	"github.com/bladenet/bladenet/guests/service"
)

// stuckAfter is how long the controller's loop may be busy with one round before the process stops beating.
const stuckAfter = 60 * time.Second

// controller is what does a guest's work: a director's or a real server's.
type controller interface {
	channel.Handler
	Run(ctx context.Context) error
	Alive() time.Time
}

// work runs the second role until ctx ends or the blade asks for the end of the machine. It returns the exit code.
func work(ctx context.Context, log *slog.Logger, o options) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var code atomic.Int32
	end := func(reboot bool) {
		code.Store(exitPowerOff)
		if reboot {
			code.Store(exitReboot)
		}
		// The answer to the blade is on its way; what ends the connection may wait for it.
		time.AfterFunc(200*time.Millisecond, cancel)
	}
	var c controller
	var ready <-chan struct{}
	if o.Server {
		s := newServer(log, o, end)
		c, ready = s, s.Ready()
	} else {
		table := ipvs.Open("")
		defer table.Close()
		c = newDirector(log, o, table, end)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if o.Beat > 0 {
		syscall.CloseOnExec(o.Beat) // no child of ours beats for us
		wg.Go(func() { beat(ctx, os.NewFile(uintptr(o.Beat), "beat"), c, ready) })
	}
	wg.Go(func() { serve(ctx, log, o.Listen, c) })
	err := c.Run(ctx)
	return int(code.Load()), err
}

func newDirector(log *slog.Logger, o options, table director.Table, end func(reboot bool)) *director.Controller {
	var hostname func(string) error
	if o.Host {
		hostname = setHostname
	}
	return director.New(director.Config{
		Log:      log,
		Store:    director.Store{Path: o.State},
		Software: "bladenet " + version,
		Table:    table,
		Place:    director.Namespace{},
		Announcer: announce.New(announce.Config{
			Log: log, Programs: o.FRR, Run: filepath.Join(o.Run, "frr"), User: "frr",
			Guard: []string{"/proc/self/exe", "--guard"},

			Keepalived: o.VRRP, Pair: filepath.Join(o.Run, "vrrp"),
		}),
		Probe:    health.Try,
		Prober:   reach.New(log, reach.Links("eth1", "eth0")),
		Program:  health.Script,
		Hostname: hostname,
		End:      end,
	})
}

func newServer(log *slog.Logger, o options, end func(reboot bool)) *server.Controller {
	return server.New(server.Config{
		Log:      log,
		Store:    director.Store{Path: o.State},
		Software: "bladenet " + version,
		Place:    director.Namespace{},
		Hostname: setHostname,
		Service: func() (channel.ServerStatus, error) {
			s, err := service.LoadState(o.serviceState())
			return channel.ServerStatus(s), err
		},
		End: end,
	})
}

func setHostname(name string) error {
	if have, err := os.Hostname(); err == nil && have == name {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name %s: %w", name, err)
	}
	return nil
}

// serve listens for the blade, again and again: the transport's module may be loaded later than this program.
func serve(ctx context.Context, log *slog.Logger, where string, c channel.Handler) {
	said := ""
	for ctx.Err() == nil {
		l, err := listen(where)
		if err == nil {
			log.Info("listen", "at", where)
			err = channel.Server{Handler: c, Software: "bladenet " + version, Log: log}.Serve(ctx, l)
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Error("listen", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// What a worker tells init: that its loop comes round, and that the machine's network is ready for its service.
const (
	beatAlive = '.'
	beatReady = 'r'
)

// beat tells init that this process runs and that its loop comes round, and as soon as ready is closed also that.
func beat(ctx context.Context, f *os.File, c controller, ready <-chan struct{}) {
	defer f.Close()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	word := byte(beatAlive)
	for {
		if time.Since(c.Alive()) < stuckAfter {
			if _, err := f.Write([]byte{word}); err != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-ready:
			word, ready = beatReady, nil
		}
	}
}
