package announce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A daemon that hangs announces for as long as its neighbours hear from it: zebra says nothing to them at all, bgpd's keepalives
// come from a thread of their own, and bfdd's packets speak for an ospfd that is stopped. So each is looked at, and killed when it
// hangs.
const (
	lookEvery   = 400 * time.Millisecond // for a process that somebody stopped
	looksFrozen = 2
	askEvery    = 5 * time.Second
	asksSilent  = 4 // questions without an answer, of up to vtyTimeout each
	asksBooting = 8 // the same for one that has never answered
)

// watch returns why a daemon hangs, or nothing when ctx has ended.
func (d *daemon) watch(ctx context.Context, pid int) error {
	silent := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { silent <- d.interview(ctx, pid) }()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for stopped := 0; stopped < looksFrozen; {
		select {
		case <-ctx.Done():
			<-silent
			return nil
		case err := <-silent:
			return err
		case <-look.C:
		}
		if Stopped(pid) || slices.ContainsFunc(d.program().workers(), Stopped) {
			stopped++
		} else {
			stopped = 0
		}
	}
	cancel()
	<-silent
	return errors.New("somebody stopped it")
}

// interview asks the daemon for a sign of life again and again, and returns when it gives none. Questions are counted, not the time:
// a machine that stood still finds one of them late.
func (d *daemon) interview(ctx context.Context, pid int) error {
	patience := asksBooting
	for missed := 0; missed < patience; {
		if d.program().answers(ctx, pid) {
			patience, missed = asksSilent, 0
		} else {
			missed++
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(askEvery):
		}
	}
	return fmt.Errorf("it does not answer, %d times", patience)
}

// Stopped says whether a process is stopped.
func Stopped(pid int) bool {
	stat, err := readStat(pid)
	return err == nil && (stat.state == 'T' || stat.state == 't')
}
