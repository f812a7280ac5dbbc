package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager stands for systemd: it reads what is said to it.
func manager(t *testing.T) (notifier, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return notifier{path: path}, func() string {
		buf := make([]byte, 200)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
}

func TestTheWatchdogIsFedWhileTheLoopGoesOn(t *testing.T) {
	n, heard := manager(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	beats := make(chan error, 3)
	beats <- nil
	beats <- nil
	beats <- errors.New("it stands still")
	go n.watchdog(ctx, time.Millisecond, func() error {
		select {
		case err := <-beats:
			return err
		default:
			<-ctx.Done()
			return ctx.Err()
		}
	})
	for _, want := range []string{"WATCHDOG=1", "WATCHDOG=1", "STATUS=it stands still"} {
		if got := heard(); got != want {
			t.Errorf("systemd heard %q, want %q", got, want)
		}
	}
}

func TestSayWithoutSystemdAndToNobody(t *testing.T) {
	if err := (notifier{}).say("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	if err := (notifier{path: "/nonexistent"}).say("READY=1"); err == nil || !strings.Contains(err.Error(), "READY") {
		t.Errorf("to nobody: %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "x": 0, "-5": 0, "3000000": time.Second} {
		if got := watchdogInterval(func(string) string { return text }); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestTheManualPageHasEveryFlag keeps the page, which is written by hand, and the flags together.
func TestTheManualPageHasEveryFlag(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/bladed.8")
	if err != nil {
		t.Fatal(err)
	}
	var usage strings.Builder
	if _, err := parse([]string{"--help"}, &usage); err == nil {
		t.Fatal("--help is no error")
	}
	flags := 0
	for line := range strings.Lines(usage.String()) {
		name, ok := strings.CutPrefix(line, "  -")
		if !ok {
			continue
		}
		flags++
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if !strings.Contains(string(page), `\-\-`+name) {
			t.Errorf("bladed.8 does not have --%s", name)
		}
	}
	if flags < 7 {
		t.Errorf("%d flags in:\n%s", flags, &usage)
	}
}
