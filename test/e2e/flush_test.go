//go:build kernel

package e2e

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/bladenet/bladenet/test/bench/traffic"
)

// Four flushes within half a minute are no fight yet, in which repairs are spaced. More are further apart.
var (
	flushes  = flag.Int("flushes", 4, "how often a stranger flushes the ruleset")
	spacing  = 8 * time.Second
	harmless = 4
)

// flushIsRepaired lets a stranger flush the ruleset, and prints how long what no rule allows reaches a real server then: without a table the
// bridges forward everything, so that the repair's time is the exposure. How long it is depends on the machine; that it ends does not.
func flushIsRepaired(t *testing.T, _ *blade) {
	converged(t)
	target := netip.AddrPortFrom(addressOf(t, "www-1"), 9999)
	ear := listenIn(t, "/run/bladenet/netns/www-1", target)
	stop := knock(t, target)
	if n, _ := arrivals(t, ear, time.Second); n > 0 {
		t.Fatalf("%d datagrams that no rule allows arrive while the filter stands", n)
	}
	var open []time.Duration
	passed := 0
	for range *flushes {
		begin := time.Now()
		run(t, "nft", "flush", "ruleset")
		n, lasted := arrivals(t, ear, time.Second)
		open, passed = append(open, lasted), passed+n
		if *flushes > harmless {
			time.Sleep(time.Until(begin.Add(spacing)))
		}
	}
	stop()
	converged(t)
	slices.Sort(open)
	t.Logf("exposure over %d flushes: median %v, worst %v; %d datagrams passed in all, one is sent every 2 ms", len(open), open[len(open)/2], open[len(open)-1], passed)
	if passed == 0 {
		t.Error("no datagram passed while there was no filter: the test shows nothing")
	}
}

// addressOf is a guest's first IPv4 address.
func addressOf(t *testing.T, guest string) netip.Addr {
	t.Helper()
	for _, g := range status(t).Guests {
		for _, text := range g.Addresses {
			if a, err := netip.ParseAddr(text); string(g.Name) == guest && err == nil && a.Is4() {
				return a
			}
		}
	}
	t.Fatalf("%s has no IPv4 address", guest)
	return netip.Addr{}
}

// listenIn opens a UDP socket in a network namespace until the test ends.
func listenIn(t *testing.T, space string, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := traffic.In(space, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// knock sends a datagram from the client every two milliseconds until it is stopped, or the test ends.
func knock(t *testing.T, target netip.AddrPort) (stop func()) {
	t.Helper()
	var c *net.UDPConn
	err := traffic.In("/run/netns/client", func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_, _ = c.Write([]byte("knock"))
			time.Sleep(2 * time.Millisecond)
		}
	}()
	stop = func() {
		cancel()
		<-ended
		c.Close()
	}
	t.Cleanup(stop)
	return stop
}

// arrivals counts datagrams until none has come for a while, and returns the time from the first to the last. They must end within
// half a minute.
func arrivals(t *testing.T, c *net.UDPConn, quiet time.Duration) (n int, lasted time.Duration) {
	t.Helper()
	var first, last time.Time
	buf := make([]byte, 64)
	for {
		_ = c.SetReadDeadline(time.Now().Add(quiet))
		_, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, last.Sub(first)
		}
		if err != nil {
			t.Fatal(err)
		}
		last = time.Now()
		if n == 0 {
			first = last
		}
		if n++; last.Sub(first) > 30*time.Second {
			t.Fatalf("%d datagrams that no rule allows have arrived in %v, and go on", n, last.Sub(first))
		}
	}
}
