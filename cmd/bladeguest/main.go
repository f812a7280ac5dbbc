package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/bladenet/bladenet/guests/director/announce"
)

// version is set by the build.
var version = "devel"

// Exit codes by which the worker tells init what to do next. Any other end is a crash, after which it is started again.
const (
	exitUsage    = 2
	exitPowerOff = 70
	exitReboot   = 71
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: shortTime}))
	if os.Getpid() == 1 {
		runInit(log, os.Args[1:])
		return // not reached: init powers the machine off
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, log, os.Stderr, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, log *slog.Logger, stderr io.Writer, args []string) int {
	o, err := parse(stderr, args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bladeguest:", err)
		return exitUsage
	}
	if o.Guard {
		announce.Guard(os.Stdin)
		return 0
	}
	code, err := work(ctx, log, o)
	if err != nil {
		log.Error("stop", "err", err)
	}
	return code
}

// shortTime keeps a console line short: the hour is enough where a blade's log has the date.
func shortTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().UTC().Format("15:04:05.000"))
	}
	return a
}
