package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// The defaults that the schema's tags tell people of.
const (
	defaultScheduler = "wlc"
	DefaultPIDs      = 1024 // processes and threads of a container
	defaultIOWeight  = 100  // the kernel's own
	defaultMemory    = Size(512 << 20)
	defaultWeight    = 100
	defaultInterval  = 2 * time.Second
	defaultTimeout   = time.Second
	defaultRise      = 2
	defaultFall      = 3
	defaultHello     = time.Second
	defaultDead      = 4 * time.Second
	defaultPace      = 300 * time.Millisecond // of BFD
	defaultMissing   = 3
	defaultAdvert    = time.Second // of VRRP
)

// build fills in the defaults and sorts.
func (p *part) build(doc *document) {
	p.zones, p.sites, p.alerts, p.expect = doc.Zones, doc.Sites, doc.Alerts, doc.Expect
	p.networks = built(doc.Networks, buildNetwork)
	p.blades = built(doc.Blades, buildBlade)
	p.services = built(doc.Services, buildService)
	p.directors = built(doc.Directors, buildDirector)
	p.realServers = built(doc.RealServers, buildRealServer)
	p.rules = built(doc.Rules, func(e *entry[ruleName, ruleDoc]) RuleEntry {
		return RuleEntry{
			Name: string(e.Name), From: values(e.Value.From), To: values(e.Value.To), Allow: values(e.Value.Allow), Pos: e.Pos,
			from: places(e.Value.From), to: places(e.Value.To), complete: e.Value.From != nil && e.Value.To != nil && e.Value.Allow != nil,
		}
	})
	p.hosts = built(doc.Hosts, func(e *entry[ruleName, hostDoc]) RuleEntry {
		return RuleEntry{
			Name: string(e.Name), From: values(e.Value.From), Allow: values(e.Value.Allow), Pos: e.Pos, from: places(e.Value.From),
			complete: e.Value.From != nil && e.Value.Allow != nil,
		}
	})
}

// assemble makes a fleet of what its files say.
func assemble(parts []*part, r *reporter) *Fleet {
	f := &Fleet{sources: r.sources}
	var zones []at[ZoneName]
	var sites []at[SiteName]
	for _, p := range parts {
		zones, sites = append(zones, p.zones...), append(sites, p.sites...)
		for _, a := range p.alerts {
			f.Alerts = append(f.Alerts, buildAlert(&a))
		}
	}
	f.Zones = named(zones, r, "zone", func(n ZoneName, p Pos) Zone { return Zone{n, p} })
	f.Sites = named(sites, r, "site", func(n SiteName, p Pos) Site { return Site{n, p} })
	slices.SortFunc(f.Zones, func(a, b Zone) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(f.Sites, func(a, b Site) int { return cmp.Compare(a.Name, b.Name) })
	rule := func(e *RuleEntry) (string, Pos) { return e.Name, e.Pos }
	f.Networks = merge(r, parts, "network", func(p *part) []Network { return p.networks }, func(n *Network) (NetworkName, Pos) { return n.Name, n.Pos })
	f.Blades = merge(r, parts, "blade", func(p *part) []BladeEntry { return p.blades }, func(b *BladeEntry) (BladeName, Pos) { return b.Name, b.Pos })
	f.Services = merge(r, parts, "service", func(p *part) []ServiceEntry { return p.services }, func(s *ServiceEntry) (ServiceName, Pos) { return s.Name, s.Pos })
	f.Directors = merge(r, parts, "director", func(p *part) []Director { return p.directors }, func(d *Director) (GuestName, Pos) { return d.Name, d.Pos })
	f.RealServers = merge(r, parts, "real server", func(p *part) []RealServer { return p.realServers }, func(s *RealServer) (GuestName, Pos) { return s.Name, s.Pos })
	f.Rules = merge(r, parts, "rule", func(p *part) []RuleEntry { return p.rules }, rule)
	f.Hosts = merge(r, parts, "host rule", func(p *part) []RuleEntry { return p.hosts }, rule)
	f.index = makeIndex(f)
	for _, p := range parts {
		for i := range p.expect {
			f.Expectations = append(f.Expectations, buildExpectation(f, &p.expect[i]))
		}
	}
	return f
}

func buildAlert(d *alertDoc) Alert {
	a := Alert{AlertTarget: AlertTarget{Webhook: string(d.Webhook.V), Command: string(d.Command.V)}, Pos: d.Pos, doc: d}
	if m := d.Mail; m != nil {
		a.Mail = &Mail{Relay: string(m.Relay.V), From: string(m.From.V), User: m.User.V, PasswordFile: string(m.PasswordFile.V)}
		for _, to := range m.To {
			a.Mail.To = append(a.Mail.To, string(to.V))
		}
	}
	return a
}

// named turns a list of names into its elements and reports names given twice.
func named[N ~string, T any](list []at[N], r *reporter, kind string, make func(N, Pos) T) []T {
	seen := map[N]Pos{}
	var out []T
	for _, a := range list {
		if first, ok := seen[a.V]; ok {
			r.clash(a.Pos, first, "first written here", "names are unique over all files", "%s %s twice", kind, a.V)
			continue
		}
		seen[a.V] = a.Pos
		out = append(out, make(a.V, a.Pos))
	}
	return out
}

// built turns a map's entries into elements sorted by name.
func built[K ~string, D, T any](e entries[K, D], make func(*entry[K, D]) T) []T {
	sorted := slices.Clone(e.list)
	slices.SortFunc(sorted, func(a, b entry[K, D]) int { return cmp.Compare(a.Name, b.Name) })
	var out []T
	for i := range sorted {
		out = append(out, make(&sorted[i]))
	}
	return out
}

func values[T any](list []at[T]) []T {
	var out []T
	for _, a := range list {
		out = append(out, a.V)
	}
	return out
}

func places[T any](list []at[T]) []Pos {
	var out []Pos
	for _, a := range list {
		out = append(out, a.Pos)
	}
	return out
}

func buildNetwork(e *entry[NetworkName, networkDoc]) Network {
	d := &e.Value
	return Network{
		Name: e.Name, Zone: d.Zone.V, Role: d.Role.V, VLAN: d.VLAN.V, Sites: values(d.Sites), Subnets: values(d.Subnets),
		Routers: values(d.Routers), Pos: e.Pos, doc: d,
	}
}

func buildBlade(e *entry[BladeName, bladeDoc]) BladeEntry {
	d := &e.Value
	return BladeEntry{
		Name: e.Name, Site: d.Site.V, Zone: d.Zone.V, Trunk: string(d.Trunk.V), Management: string(d.Management.V), Pos: e.Pos, doc: d,
	}
}

func buildService(e *entry[ServiceName, serviceDoc]) ServiceEntry {
	d := &e.Value
	s := ServiceEntry{
		Name: e.Name, Zone: d.Zone.V, VIPs: values(d.VIPs), Ports: values(d.Ports), Clients: clients(d.Clients),
		Scheduler: string(d.Balance.Scheduler.or(defaultScheduler)), Mode: d.Balance.Mode.or(ModeSpread), Remote: d.Balance.Remote.V,
		Persistence: d.Persistence.V, SlowStart: d.Balance.SlowStart.V,
		Persistence4: d.Persistence4.or(32), Persistence6: d.Persistence6.or(128), OnePacket: d.Balance.OnePacket.V, Up: d.Quorum.Up.or(1), Hysteresis: d.Quorum.Hysteresis.V,
		OnUp: string(d.Quorum.OnUp.V), OnDown: string(d.Quorum.OnDown.V), Sorry: d.Sorry.V, Pos: e.Pos, doc: d,
	}
	s.Check = buildCheck(d.Check, s.Ports)
	return s
}

// clients returns no prefix when any is among them.
func clients(list []at[Selector]) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range list {
		if c.V.Any {
			return nil
		}
		if c.V.Prefix.IsValid() {
			out = append(out, c.V.Prefix)
		}
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out)
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// firstPort returns the first port of a protocol in a service's list, or of any when the protocol is empty; 0 when there is none.
func firstPort(ports []PortRange, proto Protocol) uint16 {
	for _, p := range ports {
		if p.Protocol == proto || proto == "" {
			return p.First
		}
	}
	return 0
}

// buildCheck returns nil when nothing can be checked without being told how.
func buildCheck(d *checkDoc, ports []PortRange) *CheckEntry {
	tcp := firstPort(ports, TCP)
	if d == nil || d.TCP == nil && d.HTTP == nil && d.HTTPS == nil && d.SMTP == nil && d.DNS == nil && d.Script == nil {
		if tcp == 0 {
			return nil
		}
		if d == nil {
			d = &checkDoc{}
		}
		d = &checkDoc{Interval: d.Interval, Timeout: d.Timeout, Rise: d.Rise, Fall: d.Fall, Pos: d.Pos, TCP: &tcpCheckDoc{}}
	}
	c := &CheckEntry{
		Interval: d.Interval.or(defaultInterval), Timeout: d.Timeout.or(defaultTimeout), Rise: d.Rise.or(defaultRise),
		Fall: d.Fall.or(defaultFall), Pos: d.Pos,
	}
	switch {
	case d.TCP != nil:
		c.Kind, c.Port = "tcp", uint16(d.TCP.Port.or(portNumber(tcp)))
	case d.HTTP != nil:
		c.http("http", d.HTTP, tcp)
	case d.HTTPS != nil:
		c.http("https", d.HTTPS, tcp)
	case d.SMTP != nil:
		c.Kind, c.Port, c.Host = "smtp", uint16(d.SMTP.Port.or(portNumber(tcp))), string(d.SMTP.Host.V)
	case d.DNS != nil:
		c.Kind, c.Port = "dns", uint16(d.DNS.Port.or(53))
		c.Name, c.Type = string(d.DNS.Name.V), string(d.DNS.Type.or("A"))
	case d.Script != nil:
		c.Kind, c.Port, c.Path = "script", uint16(d.Script.Port.or(portNumber(firstPort(ports, "")))), string(d.Script.Path.V)
		c.SetsWeight = d.Script.SetsWeight.V
	}
	return c
}

func (c *CheckEntry) http(kind string, d *httpCheckDoc, tcp uint16) {
	c.Kind, c.Port = kind, uint16(d.Port.or(portNumber(tcp)))
	c.Path, c.Host, c.Status = string(d.Path.or("/")), string(d.Host.V), d.Status.or(200)
	c.Body = d.Body.V
}

func buildAttachment(d *interfaceDoc) Attachment {
	if d == nil {
		d = &interfaceDoc{}
	}
	return Attachment{Network: d.Network.V, Addresses: values(d.Addresses), Pos: d.Pos, doc: d}
}

func buildDirector(e *entry[GuestName, directorDoc]) Director {
	d := &e.Value
	g := Director{
		Name: e.Name, Blade: d.Blade.V, Image: string(d.Image.or("director")), Memory: int64(d.Memory.or(defaultMemory)), CPUs: d.CPUs.or(1), Drain: d.Drain.V, Sync: d.Sync.V,
		Eth0: buildAttachment(d.Eth0), Eth1: buildAttachment(d.Eth1), Pos: e.Pos, announce: d.Announce.Pos, macs: macsOf(e.Name), doc: d,
	}
	if o := d.Announce.OSPF; o != nil {
		g.OSPF = &OSPF{Area: string(o.Area.or("0.0.0.0")), Hello: o.Hello.or(defaultHello), Dead: o.Dead.or(defaultDead), BFD: buildBFD(o.BFD)}
	}
	if b := d.Announce.BGP; b != nil {
		g.BGP = &BGP{AS: uint32(b.AS.V), PeerAS: uint32(b.PeerAS.V), BFD: buildBFD(b.BFD)}
	}
	if v := d.Announce.VRRP; v != nil {
		g.VRRP = &VRRP{ID: v.ID.V, Priority: v.Priority.V, Interval: v.Interval.or(defaultAdvert)}
	}
	return g
}

func buildBFD(d bfdDoc) BFD {
	if !d.on {
		return BFD{}
	}
	return BFD{Interval: d.Interval.or(defaultPace), Multiplier: d.Multiplier.or(defaultMissing)}
}

func buildRealServer(e *entry[GuestName, realServerDoc]) RealServer {
	d := &e.Value
	g := RealServer{
		Name: e.Name, Blade: d.Blade.V, Image: string(d.Image.V), Memory: int64(d.Memory.or(defaultMemory)), CPUs: d.CPUs.or(1), Drain: d.Drain.V,
		PIDs: d.PIDs.or(DefaultPIDs), IOWeight: d.IOWeight.or(defaultIOWeight), Disk: int64(d.Disk.V), Driver: d.Driver.or(DriverLXC), Spare: d.Spare.V, Privileged: d.Privileged.V,
		Eth0: buildAttachment(d.Eth0), Eth1: buildAttachment(d.Eth1), Pos: e.Pos, macs: macsOf(e.Name), doc: d,
		Volumes: built(d.Volumes, buildVolume),
	}
	if d.Serves != nil {
		g.Serves = built(*d.Serves, func(s *entry[ServiceName, serveDoc]) Serve {
			return Serve{Service: s.Name, Weight: s.Value.Weight.or(defaultWeight), Pos: s.Pos}
		})
	}
	return g
}

func buildVolume(e *entry[VolumeName, volumeDoc]) VolumeEntry {
	d := &e.Value
	return VolumeEntry{Volume: Volume{Name: e.Name, Path: string(d.Path.V), ReadOnly: d.ReadOnly.V}, Pos: e.Pos, path: d.Path.Pos}
}

// buildExpectation tells blades' names from guests'.
func buildExpectation(f *Fleet, d *expectDoc) Expectation {
	return Expectation{
		From: f.endpoint(d.From.V), As: d.As.V, To: f.endpoint(d.To.To.V), Protocol: d.To.Port.V.Protocol, Port: d.To.Port.V.First,
		SourcePort: uint16(d.SourcePort.V), Flags: d.Flags.V, Verdict: d.Verdict.V, Why: d.Why.V, Pos: d.Pos,
		from: d.From.Pos, to: d.To.To.Pos, doc: d,
	}
}

func (f *Fleet) endpoint(e Endpoint) Endpoint {
	if _, ok := f.index.blades[BladeName(e.Guest)]; ok && e.Guest != "" {
		return Endpoint{Blade: BladeName(e.Guest)}
	}
	return e
}
