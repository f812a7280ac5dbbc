package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/result"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// The settings of both: a check a second, which may take as long, and two that fail in a row.
const (
	detectInterval = time.Second
	detectTimeout  = time.Second
	detectFall     = 2
	detectLimit    = 30 * time.Second
	detectLook     = 5 * time.Millisecond
)

// keepalivedSettings say the same to keepalived(8), whose retries come after the first failure.
const keepalivedSettings = `global_defs {
	router_id bench
}
virtual_server 203.0.113.10 8000 {
	delay_loop 1
	lb_algo wlc
	lb_kind DR
	protocol TCP
	real_server 10.98.0.1 8000 {
		weight 100
		inhibit_on_failure
		TCP_CHECK {
			connect_timeout 1
			retry 1
			delay_before_retry 1
		}
	}
}
`

// contest is a real server that bladeguest and keepalived check beside each other, each with an IPVS table of its own.
type contest struct {
	*checkedServers
	rival  *traffic.Namespace
	dir    string
	ours   *ipvs.Kernel
	theirs *ipvs.Kernel
	guests []*exec.Cmd // that end with the contest
	server *exec.Cmd   // nil: dead
	input  io.Closer
}

// detection is D1: from the death of a real server's application, and from its silence, to weight 0 in the director's table.
func detection(ctx context.Context, o options) ([]result.Row, error) {
	c, err := newContest(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var rows []result.Row
	for _, x := range []struct {
		id, what  string
		harm, end func(context.Context) error
	}{
		{"D1", "a real server's application dies, to weight 0", c.kill, c.start},
		{"D1.silent", "a real server falls silent, to weight 0", c.silence, c.speak},
	} {
		var ours, theirs []float64
		for range o.rounds {
			if err := c.well(ctx); err != nil {
				return nil, err
			}
			sleep(ctx, rand.N(detectInterval)) // neither side's beat is met always alike
			a, b, err := c.seen(ctx, x.harm)
			if err != nil {
				return nil, err
			}
			if err := x.end(ctx); err != nil {
				return nil, err
			}
			ours, theirs = append(ours, a.Seconds()), append(theirs, b.Seconds())
		}
		what := fmt.Sprintf("%s, check each %s, fall %d", x.what, detectInterval, detectFall)
		row := result.Compare(x.id, what, "keepalived, same settings, same death", "s", ours, theirs)
		quartiles := result.SpreadOf(ours)
		rows = append(rows, ofMedians(row).Judged(result.AtMost, 1).Noted(fmt.Sprintf("ratio of the medians; quartiles of ours %.2f–%.2f s", quartiles.P25, quartiles.P75)))
	}
	return rows, nil
}

// ofMedians makes a row's ratio that of the medians: two beats that do not know of each other make the ratio of one round mean little.
func ofMedians(r result.Row) result.Row {
	r.Ratio = r.Ours / r.Peer
	return r
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func newContest(ctx context.Context) (*contest, error) {
	c := &contest{}
	var err error
	if c.dir, err = os.MkdirTemp("", "detection"); err != nil {
		return nil, err
	}
	if c.checkedServers, err = newCheckedServers(); err == nil {
		err = c.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *contest) begin(ctx context.Context) error {
	var err error
	if c.rival, err = traffic.NewNamespace(); err != nil {
		return err
	}
	if err := c.servers.Connect(traffic.Cable{Bridge: "br", Port: "q", To: c.rival, Interface: "eth1"}); err != nil {
		return err
	}
	if err := c.rival.Own("eth1", netip.MustParseAddr("10.99.0.3")); err != nil {
		return err
	}
	if err := c.rival.Own("lo", netip.MustParseAddr("203.0.113.10")); err != nil {
		return err
	}
	for _, x := range []struct {
		in   *traffic.Namespace
		args []string
	}{
		{c.servers, []string{"route", "add", "10.99.0.3", "dev", "br"}},
		{c.rival, []string{"route", "add", "10.99.0.2", "dev", "eth1"}},
		{c.rival, []string{"route", "add", "10.98.0.0/16", "via", "10.99.0.2"}},
	} {
		if _, err := x.in.Run("", "ip", x.args...); err != nil {
			return err
		}
	}
	c.ours, c.theirs = ipvs.Open(c.checker.Path()), ipvs.Open(c.rival.Path())
	if err := c.start(ctx); err != nil {
		return err
	}
	return errors.Join(c.startOurs(ctx), c.startTheirs())
}

func (c *contest) startTheirs() error {
	settings := filepath.Join(c.dir, "keepalived.conf")
	if err := os.WriteFile(settings, []byte(keepalivedSettings), 0o600); err != nil {
		return err
	}
	return c.guest(c.rival, "keepalived", "--dont-fork", "--log-console", "--check", "--use-file", settings,
		"--pid", filepath.Join(c.dir, "keepalived.pid"), "--checkers_pid", filepath.Join(c.dir, "checkers.pid"))
}

// startOurs runs the helper of a director, as it is in one, and hands it a state.
func (c *contest) startOurs(ctx context.Context) error {
	socket := filepath.Join(c.dir, "s")
	helper := filepath.Join(labSources, "bin", "bladeguest")
	if err := c.guest(c.checker, helper, "--state", filepath.Join(c.dir, "state.json"), "--listen", "unix:"+socket, "--run", c.dir); err != nil {
		return err
	}
	a := channel.Apply{Revision: "one", Guest: "bench"}
	vip, rs := netip.MustParseAddr("203.0.113.10"), server(1)
	a.Inside = policy.Inside{
		VIPs:       []policy.VIP{{Address: vip}},
		Interfaces: []policy.Interface{{Name: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.0.1/24")}}},
		Routes:     []policy.Route{{Destination: netip.MustParsePrefix("10.98.0.0/16"), Via: netip.MustParseAddr("10.99.0.2"), Interface: "eth1"}},
	}
	a.Balancer.Services = []policy.VirtualService{{
		Service: "www", VIP: vip, Protocol: policy.TCP, Port: checkPort, Scheduler: "wlc", Mode: "spread", Quorum: 1,
		Destinations: []policy.Destination{{Guest: "rs", Address: rs, Port: checkPort, Weight: 100, Check: "rs"}},
	}}
	a.Balancer.Checks = []policy.Check{{
		ID: "rs", Guest: "rs", Kind: "tcp", Address: rs, Port: checkPort, Interval: detectInterval, Timeout: detectTimeout, Rise: 1, Fall: detectFall,
	}}
	for begin := time.Now(); ; sleep(ctx, 50*time.Millisecond) {
		err := hand(ctx, socket, a)
		if err == nil || time.Since(begin) > detectLimit || ctx.Err() != nil {
			return err
		}
	}
}

func hand(ctx context.Context, socket string, a channel.Apply) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	client, err := channel.NewClient(ctx, conn, "bench")
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer client.Close()
	_, err = client.Apply(ctx, a)
	return err
}

// guest starts a program in a namespace that ends with the contest.
func (c *contest) guest(ns *traffic.Namespace, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.guests = append(c.guests, cmd)
	return nil
}

// start begins the real server's application and waits until it listens.
func (c *contest) start(ctx context.Context) error {
	cmd, err := part(ctx, "answer")
	if err != nil {
		return err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if c.input, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := c.servers.Do(cmd.Start); err != nil {
		return err
	}
	c.server = cmd
	_, err = io.ReadFull(ready, make([]byte, 1))
	return err
}

func (c *contest) kill(context.Context) error {
	if c.server == nil {
		return nil
	}
	err := c.server.Process.Kill()
	_ = c.server.Wait() // it was killed
	c.input.Close()
	c.server = nil
	return err
}

// silence has the server's host swallow what comes for the real server; speak ends it.
func (c *contest) silence(context.Context) error {
	_, err := c.servers.Run("", "ip", "route", "add", "blackhole", "10.98.0.1/32", "table", "local")
	return err
}

func (c *contest) speak(context.Context) error {
	_, err := c.servers.Run("", "ip", "route", "del", "blackhole", "10.98.0.1/32", "table", "local")
	return err
}

// weighs says whether the one real server of a table takes connections.
func weighs(ctx context.Context, k *ipvs.Kernel) (bool, error) {
	t, err := k.Observe(ctx)
	if err != nil {
		return false, err
	}
	return len(t.Services) == 1 && len(t.Services[0].Destinations) == 1 && t.Services[0].Destinations[0].Weight > 0, nil
}

// well waits until both have the server in rotation.
func (c *contest) well(ctx context.Context) error {
	for begin := time.Now(); ; sleep(ctx, 50*time.Millisecond) {
		a, errA := weighs(ctx, c.ours)
		b, errB := weighs(ctx, c.theirs)
		if err := errors.Join(errA, errB, ctx.Err()); err != nil || a && b {
			return err
		}
		if time.Since(begin) > detectLimit {
			return fmt.Errorf("not in rotation after %s: ours %v, keepalived's %v", detectLimit, a, b)
		}
	}
}

// seen does harm and returns how long it takes each to see it.
func (c *contest) seen(ctx context.Context, harm func(context.Context) error) (ours, theirs time.Duration, err error) {
	begin := time.Now()
	if err := harm(ctx); err != nil {
		return 0, 0, err
	}
	for ours == 0 || theirs == 0 {
		for k, took := range map[*ipvs.Kernel]*time.Duration{c.ours: &ours, c.theirs: &theirs} {
			if *took > 0 {
				continue
			}
			up, err := weighs(ctx, k)
			if err != nil {
				return 0, 0, err
			}
			if !up {
				*took = time.Since(begin)
			}
		}
		if time.Since(begin) > detectLimit || ctx.Err() != nil {
			return 0, 0, fmt.Errorf("not seen within %s: ours %s, keepalived's %s", detectLimit, ours, theirs)
		}
		sleep(ctx, detectLook)
	}
	return ours, theirs, nil
}

func (c *contest) Close() error {
	err := c.kill(context.Background())
	for _, g := range c.guests {
		err = errors.Join(err, g.Process.Signal(os.Interrupt))
		_ = g.Wait() // it was told to end
	}
	for _, k := range []*ipvs.Kernel{c.ours, c.theirs} {
		if k != nil {
			k.Close()
		}
	}
	if c.checkedServers != nil {
		c.checkedServers.Close()
	}
	if c.rival != nil {
		err = errors.Join(err, c.rival.Close())
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
