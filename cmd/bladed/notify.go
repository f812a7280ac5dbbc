package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// notifier speaks to systemd, as sd_notify(3) describes it: datagrams to a socket. Without a path it says nothing.
type notifier struct{ path string }

func (n notifier) say(state string) error {
	if n.path == "" {
		return nil
	}
	name := n.path
	if strings.HasPrefix(name, "@") { // an abstract one
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify %s: %w", state, err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify %s: %w", state, err)
	}
	return nil
}

// watchdog says every so often that the loop goes on, as long as it does.
func (n notifier) watchdog(ctx context.Context, every time.Duration, alive func() error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := alive(); err != nil {
			_ = n.say("STATUS=" + err.Error()) // the silence that follows is what counts
		} else {
			_ = n.say("WATCHDOG=1") // systemd restarts a daemon that it does not hear
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchdogInterval is a third of the time that systemd allows between two words; 0: it does not watch.
func watchdogInterval(getenv func(string) string) time.Duration {
	n, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(n) * time.Microsecond / 3
}
