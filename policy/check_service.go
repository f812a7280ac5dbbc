package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what one service may expand to in a director's table.
const (
	mostPorts       = 1024    // of one service
	mostVirtual     = 16_384  // IPVS services of one zone: VIPs x ports
	mostDestined    = 500_000 // destinations of them all: VIPs x ports x real servers
	longestPersist  = 24 * time.Hour
	longestSlow     = time.Hour
	shortestCheck   = 100 * time.Millisecond
	longestCheck    = time.Hour
	shortestTimeout = 10 * time.Millisecond
)

// vips checks every service's addresses against the address plan and against each other.
func (c *checker) vips() {
	subnets := c.subnetIndex()
	for i := range c.f.Services {
		s := &c.f.Services[i]
		of := "service " + string(s.Name)
		seen := map[netip.Addr]Pos{}
		for _, v := range s.doc.VIPs {
			if first, ok := seen[v.V]; ok {
				c.clash(v.Pos, first, "first written here", "", "%s: VIP %s twice", of, v.V)
				continue
			}
			seen[v.V] = v.Pos
			c.vip(s, v, subnets)
		}
		if s.doc.VIPs != nil && len(s.doc.VIPs) == 0 {
			c.errorf(s.Pos, "", "%s has an empty list of VIPs", of)
		}
	}
	c.sharedVIPs()
}

func (c *checker) vip(s *ServiceEntry, v at[netip.Addr], subnets subnetIndex) {
	of := "service " + string(s.Name)
	if !unicast(v.V) {
		c.errorf(v.Pos, "", "%s: %s is no address that users can reach", of, v.V)
		return
	}
	if h, ok := c.held[v.V]; ok {
		c.clash(v.Pos, h.pos, h.String(), "a VIP lies outside every network and is announced", "%s: VIP %s is already %s", of, v.V, h.owned())
		return
	}
	if p, ok := c.pair[s.Zone]; ok {
		c.pairVIP(of, v, p)
		return
	}
	if s, ok := subnets.find(v.V); ok {
		c.clash(v.Pos, s.Pos, "network "+string(s.network.Name), "a VIP lies outside every network and is announced",
			"%s: VIP %s lies inside network %s", of, v.V, s.network.Name)
	}
}

// claim is one service's use of a VIP.
type claim struct {
	service *ServiceEntry
	vip     Pos
	ports   at[PortRange]
}

// sharedVIPs finds a VIP and port in two services, and a VIP in two zones.
func (c *checker) sharedVIPs() {
	claims := map[netip.Addr][]claim{}
	var order []netip.Addr
	for i := range c.f.Services {
		s := &c.f.Services[i]
		done := map[netip.Addr]bool{}
		for _, v := range s.doc.VIPs {
			if done[v.V] {
				continue
			}
			done[v.V] = true
			if claims[v.V] == nil {
				order = append(order, v.V)
			}
			for _, p := range s.doc.Ports {
				claims[v.V] = append(claims[v.V], claim{s, v.Pos, p})
			}
		}
	}
	for _, v := range order {
		c.sharedVIP(v, claims[v])
	}
}

func (c *checker) sharedVIP(v netip.Addr, claims []claim) {
	if len(claims) == 0 {
		return
	}
	slices.SortFunc(claims, func(a, b claim) int { return cmp.Or(comparePorts(a.ports.V, b.ports.V), comparePos(a.vip, b.vip)) })
	zones := map[ZoneName]claim{}
	reach := claims[0] // the range that goes furthest so far
	for i, x := range claims {
		if i > 0 {
			c.samePort(v, reach, x)
		}
		if reach.ports.V.Protocol != x.ports.V.Protocol || x.ports.V.Last > reach.ports.V.Last {
			reach = x
		}
		if _, ok := zones[x.service.Zone]; !ok && c.f.index.zones[x.service.Zone] != nil {
			zones[x.service.Zone] = x
		}
	}
	if len(zones) < 2 {
		return
	}
	var users []claim
	for _, x := range zones {
		users = append(users, x)
	}
	slices.SortFunc(users, func(a, b claim) int { return comparePos(a.vip, b.vip) })
	c.clash(users[1].vip, users[0].vip, "service "+string(users[0].service.Name)+" of zone "+string(users[0].service.Zone),
		"zones share nothing", "service %s of zone %s: VIP %s belongs to a service of another zone", users[1].service.Name, users[1].service.Zone, v)
}

func (c *checker) samePort(v netip.Addr, a, b claim) {
	if a.service == b.service || a.ports.V.Protocol != b.ports.V.Protocol || b.ports.V.First > a.ports.V.Last {
		return
	}
	if comparePos(b.vip, a.vip) < 0 {
		a, b = b, a
	}
	c.clash(b.vip, a.vip, "service "+string(a.service.Name), "the same VIP on other ports is fine",
		"services %s and %s both have VIP %s with port %s", a.service.Name, b.service.Name, v, b.ports.V)
}

// services checks each service by itself and against its real servers.
func (c *checker) services() {
	virtual, destined := map[ZoneName]int{}, map[ZoneName]int{}
	for i := range c.f.Services {
		s := &c.f.Services[i]
		known(c, c.f.index.zones, s.doc.Zone, "zone", "service "+string(s.Name))
		ports := c.servicePorts(s)
		count := ports * len(s.VIPs)
		if over(virtual, s.Zone, count, mostVirtual) {
			c.errorf(s.Pos, "", "service %s: the services of zone %s have more than %d VIPs and ports together", s.Name, s.Zone, mostVirtual)
		}
		if over(destined, s.Zone, count*len(c.f.index.servers[s.Name]), mostDestined) {
			c.errorf(s.Pos, "", "service %s: a director of zone %s would have more than %d destinations", s.Name, s.Zone, mostDestined)
		}
		c.clients(s)
		c.balance(s)
		c.healthCheck(s)
		c.nodes(s)
		c.sorry(s)
		c.persistence(s)
		c.wholeSeconds(s.doc.Persistence, "service "+string(s.Name)+": persistence", time.Second, longestPersist)
	}
	c.directorless()
}

// over adds to a zone's count and reports whether this made it pass a bound.
func over(counts map[ZoneName]int, z ZoneName, n, bound int) bool {
	before := counts[z]
	counts[z] += n
	return before <= bound && counts[z] > bound
}

// servicePorts checks a service's ports and counts them.
func (c *checker) servicePorts(s *ServiceEntry) int {
	of := "service " + string(s.Name)
	if s.doc.Ports != nil && len(s.doc.Ports) == 0 {
		c.errorf(s.Pos, "ports: [443/tcp]", "%s has an empty list of ports", of)
	}
	count := 0
	sorted := slices.Clone(s.doc.Ports)
	slices.SortFunc(sorted, func(a, b at[PortRange]) int { return cmp.Or(comparePorts(a.V, b.V), comparePos(a.Pos, b.Pos)) })
	var reach at[PortRange] // the range that goes furthest so far
	for _, p := range sorted {
		if p.V.Protocol == ICMP {
			c.errorf(p.Pos, "a director answers echo for a VIP by itself", "%s: icmp has no ports to balance", of)
			continue
		}
		count += int(p.V.Last) - int(p.V.First) + 1
		if reach.V.Protocol == p.V.Protocol && p.V.First <= reach.V.Last {
			first, second := reach, p
			if comparePos(second.Pos, first.Pos) < 0 {
				first, second = second, first
			}
			c.clash(second.Pos, first.Pos, "first written here", "", "%s: port %s twice", of, second.V)
		}
		if reach.V.Protocol != p.V.Protocol || p.V.Last > reach.V.Last {
			reach = p
		}
	}
	if count > mostPorts {
		c.errorf(s.Pos, "each port is one entry of the directors' tables", "%s has %d ports, more than %d", of, count, mostPorts)
	}
	return count
}

func (c *checker) clients(s *ServiceEntry) {
	of := "service " + string(s.Name)
	if s.doc.Clients != nil && len(s.doc.Clients) == 0 {
		c.errorf(s.Pos, "leave clients out, or write [any], if everybody may use it", "%s: an empty list of clients lets nobody in", of)
	}
	for _, x := range s.doc.Clients {
		switch {
		case x.V.Guest != "" || x.V.Role != "":
			c.errorf(x.Pos, "write its addresses: guests come and go by name, clients are judged by address", "%s: client %s is no address", of, x.V)
		case x.V.Any && len(s.doc.Clients) > 1:
			c.errorf(x.Pos, "", "%s: any beside other clients: the others mean nothing", of)
		}
	}
}

// ignoresWeights are the schedulers that look at a weight only to see whether it is 0 (net/netfilter/ipvs/ip_vs_*.c).
var ignoresWeights = []string{"rr", "lc", "dh"}

func (c *checker) balance(s *ServiceEntry) {
	of, b := "service "+string(s.Name), &s.doc.Balance
	deterministic := s.Scheduler == "mh" || s.Scheduler == "sh"
	place := b.Mode.Pos
	if b.Scheduler.written() {
		place = b.Scheduler.Pos
	}
	if s.Mode == ModeSurvive && !deterministic {
		c.errorf(place, "mh or sh: their choice depends on the packet alone", "%s: mode survive needs the same choice on every director, %s chooses by its own counters", of, s.Scheduler)
	}
	if s.Mode == ModeSurvive && b.Remote.written() {
		c.errorf(b.Remote.Pos, "weights that differ between directors make different tables; locality is the mode that has remote",
			"%s: mode survive with remote", of)
	}
	if s.Mode == ModeSpread && b.Remote.written() {
		c.errorf(b.Remote.Pos, "mode: locality", "%s: remote has a meaning in mode locality only", of)
	}
	if s.Mode == ModeLocality && s.Remote > 0 && slices.Contains(ignoresWeights, s.Scheduler) {
		c.errorf(b.Remote.Pos, "wrr, wlc or mh", "%s: scheduler %s looks at no weight, so that remote real servers would get a full share", of, s.Scheduler)
	}
	if b.SlowStart.written() {
		c.slowStart(s)
	}
	if s.Mode == ModeSurvive && s.Persistence > 0 {
		c.warnf(s.doc.Persistence.Pos, "mh and sh keep a client's connection by themselves",
			"%s: persistence is kept by each director for itself and does not survive one", of)
	}
}

// persistence checks that what refines persistence has something to refine.
func (c *checker) persistence(s *ServiceEntry) {
	of := "service " + string(s.Name)
	for _, x := range []struct {
		at[int]
		key string
		v4  bool
	}{{s.doc.Persistence4, "persistence-v4", true}, {s.doc.Persistence6, "persistence-v6", false}} {
		switch {
		case !x.written():
		case !s.doc.Persistence.written():
			c.errorf(x.Pos, "persistence: 5m", "%s: %s without persistence", of, x.key)
		case !slices.ContainsFunc(s.VIPs, func(a netip.Addr) bool { return a.Is4() == x.v4 }):
			c.errorf(x.Pos, "", "%s: %s, but none of its VIPs is of this family", of, x.key)
		}
	}
	at := s.doc.Balance.OnePacket
	udp := slices.ContainsFunc(s.Ports, func(p PortRange) bool { return p.Protocol == UDP })
	if s.OnePacket && !udp && len(s.Ports) > 0 {
		c.errorf(at.Pos, "ports: [53/udp]", "%s: one-packet has a meaning for UDP only", of)
	}
	if s.OnePacket && s.Persistence > 0 {
		c.errorf(at.Pos, "leave one of the two out", "%s: one-packet remembers nothing, persistence wants it to", of)
	}
}

func (c *checker) slowStart(s *ServiceEntry) {
	of, at := "service "+string(s.Name), s.doc.Balance.SlowStart
	c.wholeSeconds(at, of+": slow-start", time.Second, longestSlow)
	switch {
	case s.Mode == ModeSurvive:
		c.errorf(at.Pos, "a weight that grows makes another table at each step, at other moments on each director", "%s: mode survive with slow-start", of)
	case slices.Contains(ignoresWeights, s.Scheduler):
		c.errorf(at.Pos, "wrr or wlc", "%s: scheduler %s looks at no weight, so that slow-start would mean nothing", of, s.Scheduler)
	}
}

func (c *checker) healthCheck(s *ServiceEntry) {
	of, d := "service "+string(s.Name), s.doc.Check
	if d == nil {
		if s.Check == nil && len(s.Ports) > 0 {
			c.warnf(s.Pos, "check: {dns: {name: www.example.org}} or {script: {path: ...}}",
				"%s has no TCP port and no check: its real servers always count as up", of)
		}
		return
	}
	kinds := checkKinds(d)
	switch {
	case len(kinds) > 1:
		c.clash(kinds[1].Pos, kinds[0].Pos, kinds[0].V, "choose one", "%s: two kinds of check, %s and %s", of, kinds[0].V, kinds[1].V)
	case len(kinds) == 0 && s.Check == nil:
		c.errorf(d.Pos, "one of tcp, http, https, smtp, dns, script", "%s: check says no kind, and there is no TCP port to try", of)
	case s.Check != nil && s.Check.Port == 0 && len(s.Ports) > 0:
		c.errorf(d.Pos, "port: 443", "%s: check says no port, and the service has no TCP port", of)
	}
	if d.Script != nil && d.Script.SetsWeight.V {
		c.scriptWeight(s)
	}
	inRange := true
	for _, x := range []struct {
		at[time.Duration]
		name        string
		least, most time.Duration
	}{{d.Interval, "interval", shortestCheck, longestCheck}, {d.Timeout, "timeout", shortestTimeout, longestCheck}} {
		if x.written() && (x.V < x.least || x.V > x.most) {
			c.errorf(x.Pos, "from "+short(x.least)+" to "+short(x.most), "%s: %s %s is out of range", of, x.name, short(x.V))
			inRange = false
		}
	}
	if s.Check != nil && inRange && s.Check.Timeout > s.Check.Interval {
		place := d.Timeout.Pos
		if !d.Timeout.written() {
			place = d.Interval.Pos
		}
		c.errorf(place, "a check must end before the next one starts", "%s: timeout (%s) is longer than interval (%s)", of, short(s.Check.Timeout), short(s.Check.Interval))
	}
}

func (c *checker) scriptWeight(s *ServiceEntry) {
	of, at := "service "+string(s.Name), s.doc.Check.Script.SetsWeight
	switch {
	case s.Mode == ModeSurvive:
		c.errorf(at.Pos, "each director asks at other moments, and other weights make other tables", "%s: mode survive with sets-weight", of)
	case slices.Contains(ignoresWeights, s.Scheduler):
		c.errorf(at.Pos, "wrr or wlc", "%s: scheduler %s looks at no weight, so that sets-weight would mean nothing", of, s.Scheduler)
	}
}

// checkKinds lists the kinds that a check names, with a place for each, in the order of the file.
func checkKinds(d *checkDoc) []at[string] {
	var out []at[string]
	if d.TCP != nil {
		out = append(out, at[string]{"tcp", d.TCP.Pos})
	}
	if d.HTTP != nil {
		out = append(out, at[string]{"http", d.HTTP.Pos})
	}
	if d.HTTPS != nil {
		out = append(out, at[string]{"https", d.HTTPS.Pos})
	}
	if d.SMTP != nil {
		out = append(out, at[string]{"smtp", d.SMTP.Pos})
	}
	if d.DNS != nil {
		out = append(out, at[string]{"dns", d.DNS.Pos})
	}
	if d.Script != nil {
		out = append(out, at[string]{"script", d.Script.Pos})
	}
	slices.SortStableFunc(out, func(a, b at[string]) int { return comparePos(a.Pos, b.Pos) })
	return out
}

// nodes checks the quorum against the real servers of each family.
func (c *checker) nodes(s *ServiceEntry) {
	of, q := "service "+string(s.Name), &s.doc.Quorum
	servers := c.f.index.servers[s.Name]
	if len(servers) == 0 {
		c.warnf(s.Pos, "serves: {"+string(s.Name)+": {}} in a real server", "%s has no real server", of)
		return
	}
	regular := slices.DeleteFunc(slices.Clone(servers), func(g server) bool { return g.Spare })
	switch {
	case len(regular) == 0:
		c.errorf(servers[0].pos, "", "%s: every real server is a spare one: none runs while all is well", of)
	case q.Up.written() && s.Up > len(regular):
		c.errorf(q.Up.Pos, "", "%s: a quorum of %d needs more than its %s (%s)", of, s.Up, plural(len(regular), "real server"), serverNames(regular))
	}
	if q.Hysteresis.written() && s.Hysteresis >= s.Up && s.Hysteresis > 0 {
		c.warnf(q.Hysteresis.Pos, "hysteresis is less than up", "%s: with a quorum of %d and a hysteresis of %d the quorum is lost with the last real server only", of, s.Up, s.Hysteresis)
	}
	if !slices.ContainsFunc(servers, func(g server) bool { return g.weight > 0 }) {
		c.warnf(servers[0].pos, "", "%s: every real server has weight 0: it takes no connections", of)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func serverNames(servers []server) string {
	var names []string
	for i, g := range servers {
		if i == 5 {
			names = append(names, "...")
			break
		}
		names = append(names, string(g.Name))
	}
	return strings.Join(names, ", ")
}

func (c *checker) sorry(s *ServiceEntry) {
	of, ref := "service "+string(s.Name), s.doc.Sorry
	if !ref.written() {
		return
	}
	if d := c.f.Director(ref.V); d != nil && c.f.RealServer(ref.V) == nil {
		c.clash(ref.Pos, d.Pos, "the director", "", "%s: sorry server %s is a director", of, ref.V)
		return
	}
	g := known(c, c.f.index.realServers, ref, "real server", of+": sorry")
	if g == nil {
		return
	}
	if b := c.f.Blade(g.Blade); b != nil && c.mixed(b.Zone, s.Zone) {
		c.clash(ref.Pos, g.Pos, "the real server", "zones share nothing",
			"%s of zone %s: sorry server %s stands in zone %s", of, s.Zone, ref.V, b.Zone)
	}
	i := slices.IndexFunc(g.Serves, func(x Serve) bool { return x.Service == s.Name })
	if i >= 0 {
		c.clash(ref.Pos, g.Serves[i].Pos, "serves it", "a sorry server answers when the others are gone", "%s: sorry server %s already serves it", of, ref.V)
	}
}

// directorless finds zones whose services nobody balances.
func (c *checker) directorless() {
	has, unknown := map[ZoneName]bool{}, false
	for i := range c.f.Directors {
		if b := c.f.Blade(c.f.Directors[i].Blade); b != nil && c.f.index.zones[b.Zone] != nil {
			has[b.Zone] = true
		} else {
			unknown = true
		}
	}
	for i := range c.f.Services {
		s := &c.f.Services[i]
		if z := c.f.index.zones[s.Zone]; z != nil && !has[s.Zone] && !unknown {
			has[s.Zone] = true
			c.warnf(z.Pos, "", "zone %s has services and no director: nobody can reach them", s.Zone)
		}
	}
}
