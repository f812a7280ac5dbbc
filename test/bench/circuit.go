package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/fleet"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// circuit is a user, a blade and a guest in namespaces of their own, with real connections between them. Requests come in over
// the uplink's bridge to the director's port; the guest behind it answers as the VIP out of the server's port on the return
// network's bridge or, where the real server is elsewhere, on a way that the blade never sees.
type circuit struct {
	*station
	user, guest *traffic.Namespace
}

// Addresses of the circuit's ends.
var (
	userAddress  = netip.MustParseAddr("198.18.0.7")
	adminAddress = netip.MustParseAddr("203.0.113.5")
	gateway      = netip.MustParseAddr("10.9.9.9") // next hop on every link: only its MAC counts
	everything   = netip.MustParsePrefix("0.0.0.0/0")
)

// newCircuit lays the cables. With elsewhere the answers pass beside the blade.
func newCircuit(size fleet.Size, elsewhere bool) (c *circuit, err error) {
	b, err := fleet.Derive(size)
	if err != nil {
		return nil, err
	}
	c = &circuit{station: &station{size: size, blade: b}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	for _, n := range []**traffic.Namespace{&c.ns, &c.user, &c.guest} {
		if *n, err = traffic.NewNamespace(); err != nil {
			return nil, err
		}
		c.close = append(c.close, (*n).Close)
	}
	answers := c.ns
	if elsewhere {
		if answers, err = traffic.NewNamespace(); err != nil {
			return nil, err
		}
		c.close = append(c.close, answers.Close)
	}
	if err := c.ns.CallIPTables(false); err != nil {
		return nil, err
	}
	return c, errors.Join(c.cables(answers), c.addresses())
}

func (c *circuit) cables(answers *traffic.Namespace) error {
	bridge := func(n policy.NetworkName) string {
		i := slices.IndexFunc(c.blade.Segments, func(s policy.Segment) bool { return s.Network == n })
		return c.blade.Segments[i].Bridge
	}
	for _, x := range []struct {
		in    *traffic.Namespace
		cable traffic.Cable
	}{
		{c.ns, traffic.Cable{Bridge: bridge(fleet.Uplink), Port: legIn.from, To: c.user, Interface: "up", MAC: legIn.source[:]}},
		{c.ns, traffic.Cable{Bridge: bridge(fleet.Uplink), Port: legIn.to, To: c.guest, Interface: "eth0", MAC: legIn.dest[:]}},
		{answers, traffic.Cable{Bridge: bridge(fleet.Return), Port: legOut.to, To: c.user, Interface: "back", MAC: legOut.dest[:]}},
		{answers, traffic.Cable{Bridge: bridge(fleet.Return), Port: legOut.from, To: c.guest, Interface: "out", MAC: legOut.source[:]}},
	} {
		if err := x.in.Connect(x.cable); err != nil {
			return err
		}
	}
	return nil
}

func (c *circuit) addresses() error {
	director := c.director()
	var errs []error
	for _, n := range []*traffic.Namespace{c.user, c.guest} {
		for _, key := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv4/conf/all/accept_local"} {
			errs = append(errs, n.Set(key, "0"))
		}
	}
	for _, link := range []string{"up", "back"} {
		errs = append(errs, c.user.Set("ipv4/conf/"+link+"/rp_filter", "0"))
	}
	for _, link := range []string{"eth0", "out"} {
		errs = append(errs, c.guest.Set("ipv4/conf/"+link+"/rp_filter", "0"))
	}
	errs = append(
		errs,
		c.user.Own("lo", userAddress), c.user.Own("lo", adminAddress),
		c.user.Route(everything, "up", gateway, legIn.dest[:]),
		c.guest.Own("lo", fleet.FirstVIP4), c.guest.Own("lo", director),
		c.guest.Route(everything, "out", gateway, routerMAC[:]),
		c.guest.Route(netip.PrefixFrom(adminAddress, 32), "eth0", gateway, routerMAC[:]),
	)
	return errors.Join(errs...)
}

// director is the director's own address on its uplink.
func (c *circuit) director() netip.Addr {
	for _, g := range c.blade.Guests {
		if g.Name == fleet.Director {
			return g.Ports[0].Addresses[0]
		}
	}
	return netip.Addr{}
}

// offload switches the offloads of every end.
func (c *circuit) offload(on bool) error {
	return errors.Join(
		c.ns.Offload(legIn.from, on), c.ns.Offload(legIn.to, on), c.ns.Offload(legOut.from, on), c.ns.Offload(legOut.to, on),
		c.user.Offload("up", on), c.user.Offload("back", on), c.guest.Offload("eth0", on), c.guest.Offload("out", on),
	)
}

// listen opens a listening socket in the guest.
func (c *circuit) listen(at netip.AddrPort) (l net.Listener, err error) {
	err = c.guest.Do(func() error {
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
		return err
	})
	return l, err
}

// dial opens a connection of the user. It must be open within the limit.
func (c *circuit) dial(ctx context.Context, from netip.Addr, to netip.AddrPort, segment int, limit time.Duration) (conn *net.TCPConn, err error) {
	d := net.Dialer{Timeout: limit, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	if segment > 0 {
		d.Control = maxSegment(segment)
	}
	err = c.user.Do(func() error {
		x, err := d.DialContext(ctx, "tcp4", to.String())
		if err != nil {
			return err
		}
		conn = x.(*net.TCPConn)
		return nil
	})
	return conn, err
}

func (c *circuit) service() netip.AddrPort {
	return netip.AddrPortFrom(fleet.FirstVIP4, fleet.FirstPort)
}

// transfer sends through one connection for a time and returns Gbit/s, counted where they arrive.
func (c *circuit) transfer(ctx context.Context, l net.Listener, segment int, during time.Duration) (float64, error) {
	arrived := make(chan float64, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			arrived <- 0
			return
		}
		defer conn.Close()
		buf, n := make([]byte, 256<<10), 0
		begin := time.Now()
		for {
			got, err := conn.Read(buf)
			if n += got; err != nil {
				break
			}
		}
		arrived <- float64(n) * 8 / float64(time.Since(begin))
	}()
	conn, err := c.dial(ctx, userAddress, c.service(), segment, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 256<<10)
	for end := time.Now().Add(during); time.Now().Before(end); {
		if _, err := conn.Write(buf); err != nil {
			return 0, fmt.Errorf("send to the VIP: %w", err)
		}
	}
	if err := conn.Close(); err != nil {
		return 0, err
	}
	return <-arrived, nil
}

// maxSegment bounds a connection's segments before it is opened.
func maxSegment(bytes int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, bytes) })
		return errors.Join(err, failed)
	}
}
