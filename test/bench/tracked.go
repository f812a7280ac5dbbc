package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
	"github.com/bladenet/bladenet/test/bench/result"
)

// clientsOfEach times 1000 services are the flows of P7.
const clientsOfEach = 100

// untracked is P7: what it spares a VIP's packets that connections are not tracked.
func untracked(ctx context.Context, o options) ([]result.Row, error) {
	if err := setConntrackMax(1 << 20); err != nil {
		return nil, err
	}
	ours, err := newStation(reference)
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	note, err := ours.protect(ctx)
	if err == nil && note != "" {
		err = errors.New(note)
	}
	if err != nil {
		return nil, err
	}
	tracking, err := newStation(reference)
	if err != nil {
		return nil, err
	}
	defer tracking.Close()
	if tracking.kernel, err = nft.NewKernel(tracking.ns.Path()); err != nil {
		return nil, err
	}
	tracking.close = append(tracking.close, tracking.kernel.Close)
	if err := replace(ctx, tracking.kernel, withTracking(filter.Compile(tracking.blade))); err != nil {
		return nil, err
	}
	// Every flow has its entry before the first sample.
	what := packets{clients: clientsOfEach}
	p, err := tracking.passage(legIn, what)
	if err != nil {
		return nil, err
	}
	for range 8 {
		if _, err := p.Cost(64_000); err != nil {
			return nil, err
		}
	}
	series, err := o.compare(legIn, what, ours, tracking)
	if err != nil {
		return nil, err
	}
	with, err := tracking.entries()
	if err != nil {
		return nil, err
	}
	without, err := ours.entries()
	if err != nil {
		return nil, err
	}
	if without != 0 || with < 1000*clientsOfEach*9/10 {
		return nil, fmt.Errorf("count entries: %d without tracking, %d with", without, with)
	}
	row := result.Compare("P7", "packet to a director, not tracked", "same ruleset without notrack", "ns", series[0], series[1])
	return []result.Row{row.Judged(result.AtMost, 0.90).Noted(fmt.Sprintf("the peer tracked %d flows", with))}, nil
}

// withTracking is the ruleset less its notrack.
func withTracking(r filter.Ruleset) filter.Ruleset {
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			for i := range c.Rules {
				c.Rules[i].Statements = slices.DeleteFunc(slices.Clone(c.Rules[i].Statements), isNotrack)
			}
		}
	}
	return r
}

func isNotrack(s filter.Statement) bool {
	_, is := s.(filter.Notrack)
	return is
}

// entries counts what conntrack holds in the station's namespace.
func (s *station) entries() (n int, err error) {
	err = s.ns.Do(func() error {
		data, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err
	})
	return n, err
}

// setConntrackMax bounds the table of every namespace.
func setConntrackMax(n int) error {
	return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_max", []byte(strconv.Itoa(n)), 0o644)
}

// statefulFilter is what one writes who lets a VIP's packets through and has conntrack follow everything.
const statefulFilter = `table bridge peer {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ether type arp accept
		ip daddr 10.200.0.0/16 tcp dport 8001-8004 accept
		ct state established,related accept
		ct state new ip saddr 203.0.113.0/28 tcp dport 22 accept
	}
}
`

// directReturn is C1 and C2: connections whose answers the blade never sees.
func directReturn(ctx context.Context, _ options) ([]result.Row, error) {
	const vip, admin, small = 600, 30, 500
	ours, err := connections(ctx, func(c *circuit) error {
		note, err := c.load(ctx)
		if err == nil && note != "" {
			err = errors.New(note)
		}
		return err
	}, vip, admin, small)
	if err != nil {
		return nil, err
	}
	theirs, err := connections(ctx, func(c *circuit) error {
		_, err := c.ns.Run(statefulFilter, "nft", "-f", "-")
		return err
	}, vip, admin, small)
	if err != nil {
		return nil, err
	}
	peerIs := "nft, stateful on the bridge"
	all := func(o, p, n int) (float64, float64) { return float64(o) / float64(n), float64(p) / float64(n) }
	vo, vp := all(ours.vip, theirs.vip, vip)
	ao, ap := all(ours.admin, theirs.admin, admin)
	return []result.Row{
		result.Count("C1", "conntrack entries after 1000 direct-return connections", peerIs, "entries", float64(ours.entries), float64(theirs.entries)).
			Judged(result.AtMost, 0).Noted(fmt.Sprintf("%d and %d of 1000 connections succeeded", ours.wide, theirs.wide)),
		result.Count("C2.vip", "600 connections to VIPs, room for 500 in the table", peerIs, "of all", vo, vp).Judged(result.AtLeast, 1),
		result.Count("C2.admin", "30 connections of administrators after them", peerIs, "of all", ao, ap).Judged(result.AtLeast, 1),
	}, nil
}

// outcome is how many connections succeeded, and what was tracked.
type outcome struct{ wide, entries, vip, admin int }

func connections(ctx context.Context, guard func(*circuit) error, vip, admin, small int) (outcome, error) {
	var out outcome
	err := inCircuit(guard, 1<<20, func(c *circuit) (err error) {
		if out.wide, err = c.connect(ctx, userAddress, c.service(), 1000); err != nil {
			return err
		}
		out.entries, err = c.entries()
		return err
	})
	if err != nil {
		return out, err
	}
	if out.wide != 1000 {
		return out, fmt.Errorf("open 1000 connections: %d succeeded", out.wide)
	}
	err = inCircuit(guard, small, func(c *circuit) (err error) {
		if out.vip, err = c.connect(ctx, userAddress, c.service(), vip); err != nil {
			return err
		}
		out.admin, err = c.connect(ctx, adminAddress, netip.AddrPortFrom(c.director(), 22), admin)
		return err
	})
	return out, err
}

// inCircuit makes a circuit whose answers pass beside the blade, with room for so many entries in every table.
func inCircuit(guard func(*circuit) error, room int, do func(*circuit) error) error {
	if err := setConntrackMax(room); err != nil {
		return err
	}
	c, err := newCircuit(reference, true)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := guard(c); err != nil {
		return err
	}
	for _, at := range []netip.AddrPort{c.service(), netip.AddrPortFrom(c.director(), 22)} {
		l, err := c.listen(at)
		if err != nil {
			return err
		}
		c.close = append(c.close, l.Close)
		go answer(l)
	}
	return do(c)
}

// answer says a word on every connection and closes it.
func answer(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte("here"))
		_ = conn.Close()
	}
}

// connect opens connections, a few at a time, and counts those on which the answer came.
func (c *circuit) connect(ctx context.Context, from netip.Addr, to netip.AddrPort, n int) (int, error) {
	const limit, atOnce = 3 * time.Second, 8
	var succeeded atomic.Int64
	var wait sync.WaitGroup
	left := make(chan struct{}, n)
	for range n {
		left <- struct{}{}
	}
	close(left)
	for range atOnce {
		wait.Go(func() {
			for range left {
				if ctx.Err() == nil && c.answered(ctx, from, to, limit) {
					succeeded.Add(1)
				}
			}
		})
	}
	wait.Wait()
	return int(succeeded.Load()), ctx.Err()
}

func (c *circuit) answered(ctx context.Context, from netip.Addr, to netip.AddrPort, limit time.Duration) bool {
	conn, err := c.dial(ctx, from, to, 0, limit)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return false
	}
	_, err = io.ReadFull(conn, make([]byte, 4))
	return err == nil
}
