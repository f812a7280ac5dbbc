package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
	"github.com/bladenet/bladenet/test/bench/fleet"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// leg is one hop of a VIP's packets over one of the blade's bridges, between two ports.
type leg struct {
	name, what   string
	network      policy.NetworkName
	from, to     string
	source, dest policy.MAC
	answer       bool
}

// The legs of direct routing, as this blade sees them.
var (
	legIn = leg{
		name: "in", what: "from the backbone to a director",
		network: fleet.Uplink, from: policy.VLANLink(fleet.UplinkVLAN), to: policy.PortName(fleet.Director, "eth0"),
		source: routerMAC, dest: policy.MACOf(fleet.Director, "eth0"),
	}
	legHop = leg{
		name: "hop", what: "from a director to a server elsewhere",
		network: fleet.Service, from: policy.PortName(fleet.Director, "eth1"), to: policy.VLANLink(fleet.ServiceVLAN),
		source: policy.MACOf(fleet.Director, "eth1"), dest: policy.MACOf(fleet.RemoteServer, "eth1"),
	}
	legServer = leg{
		name: "server", what: "from a director elsewhere to a server",
		network: fleet.Service, from: policy.VLANLink(fleet.ServiceVLAN), to: policy.PortName(fleet.Server, "eth1"),
		source: policy.MACOf(fleet.RemoteDirector, "eth1"), dest: policy.MACOf(fleet.Server, "eth1"),
	}
	legOut = leg{
		name: "out", what: "from a server to the user",
		network: fleet.Return, from: policy.PortName(fleet.Server, "eth0"), to: policy.VLANLink(fleet.ReturnVLAN),
		source: policy.MACOf(fleet.Server, "eth0"), dest: routerMAC, answer: true,
	}
	routerMAC = policy.MAC{2, 0, 0, 0, 0xff, 1}
)

func legs() []leg { return []leg{legIn, legHop, legServer, legOut} }

// station is a namespace with a blade's bridges, of whose guests only those with traffic have their ports, and a filter or none.
type station struct {
	ns      *traffic.Namespace
	size    fleet.Size
	blade   policy.Blade
	kernel  *nft.Kernel
	bridges map[policy.NetworkName]*traffic.Bridge
	close   []func() error
}

// newStation makes the bridges of a blade, with nothing that filters.
func newStation(size fleet.Size) (*station, error) {
	b, err := fleet.Derive(size)
	if err != nil {
		return nil, err
	}
	ns, err := traffic.NewNamespace()
	if err != nil {
		return nil, err
	}
	s := &station{ns: ns, size: size, blade: b, bridges: map[policy.NetworkName]*traffic.Bridge{}, close: []func() error{ns.Close}}
	if err := s.makeBridges(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *station) makeBridges() error {
	ports := map[policy.NetworkName]map[string]net.HardwareAddr{}
	for _, l := range legs() {
		if ports[l.network] == nil {
			ports[l.network] = map[string]net.HardwareAddr{}
		}
		ports[l.network][l.to] = l.dest[:]
		if ports[l.network][l.from] == nil {
			ports[l.network][l.from] = l.source[:]
		}
	}
	for _, segment := range s.blade.Segments {
		b, err := s.ns.NewBridge(segment.Bridge, ports[segment.Network])
		if err != nil {
			return err
		}
		s.bridges[segment.Network] = b
	}
	return s.ns.CallIPTables(false)
}

// Close takes everything away.
func (s *station) Close() {
	for _, c := range slices.Backward(s.close) {
		_ = c()
	}
}

// packets says what a leg's packets are.
type packets struct {
	v6       bool
	unlisted bool // to ports that no service has
	vips     int  // of so many VIPs only; 0: of all
	clients  int  // of so many clients only; 0: of any
}

// passage is a leg's way with its packets.
func (s *station) passage(l leg, what packets) (traffic.Passage, error) {
	f := traffic.Flow{
		Source: l.source[:], Destination: l.dest[:], Answer: l.answer, Clients: what.clients,
		VIPs: s.size.VIPs(), Port: fleet.FirstPort, Ports: s.size.PortsPerVIP(),
		Client: netip.MustParseAddr("198.18.0.0"), VIP: fleet.FirstVIP4,
	}
	if what.v6 {
		f.Client, f.VIP = netip.MustParseAddr("2001:db8:c::"), fleet.FirstVIP6
	}
	if what.vips > 0 {
		f.VIPs = what.vips
	}
	if what.unlisted {
		f.Port += 1000
	}
	p, err := traffic.Load(f)
	if err != nil {
		return traffic.Passage{}, err
	}
	s.close = append(s.close, p.Close)
	return traffic.Passage{Bridge: s.bridges[l.network], From: l.from, To: l.to, Program: p}, nil
}

// protect loads the blade's own ruleset and proves that it is at work: packets to or from ports of no service must not arrive.
func (s *station) protect(ctx context.Context) (note string, err error) {
	if note, err = s.load(ctx); err != nil {
		return "", err
	}
	return note, s.closed()
}

// load loads the blade's own ruleset. The note says what this kernel has not of it.
func (s *station) load(ctx context.Context) (note string, err error) {
	if s.kernel, err = nft.NewKernel(s.ns.Path()); err != nil {
		return "", err
	}
	s.close = append(s.close, s.kernel.Close)
	rules, note, err := usable(ctx, s.kernel, filter.Compile(s.blade))
	if err != nil {
		return "", err
	}
	return note, replace(ctx, s.kernel, rules)
}

// closed sends what no rule lets through.
func (s *station) closed() error {
	for _, l := range legs() {
		for _, v6 := range []bool{false, true} {
			if err := s.refuses(l, v6); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuses sends packets to or from ports of no service over a leg: none may arrive.
func (s *station) refuses(l leg, v6 bool) error {
	p, err := s.passage(l, packets{v6: v6, unlisted: true})
	if err != nil {
		return err
	}
	_, arrived, err := p.Send(6400)
	if err == nil && arrived > 0 {
		err = fmt.Errorf("%d arrived", arrived)
	}
	if err != nil {
		return fmt.Errorf("send packets of no service by leg %s: %w", l.name, err)
	}
	return nil
}
