//go:build kernel

package nft

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// port returns a guest's port on the blade.
func (x *bench) port(guest policy.GuestName, inside string) policy.Port {
	x.t.Helper()
	for _, g := range x.blade.Guests {
		for _, p := range g.Ports {
			if g.Name == guest && p.Interface == inside {
				return p
			}
		}
	}
	x.t.Fatalf("no %s of %s", inside, guest)
	return policy.Port{}
}

// passing sends frames of one port and counts those that come out anywhere.
func (x *bench) passing(n int, frame func(i int) filter.Packet) int {
	x.t.Helper()
	count := 0
	for i := range n {
		x.send(frame(i), uint16(i))
		if i%200 == 199 {
			count += len(x.received(10 * time.Millisecond))
		}
	}
	return count + len(x.received(100*time.Millisecond))
}

// TestABroadcastStormIsBounded sends ARP requests as fast as a guest can: its own port is cut short, and no other.
func TestABroadcastStormIsBounded(t *testing.T) {
	namespace(t)
	k, b := open(t), nantes(t, "lame-l2")
	bring(t, k, filter.Compile(b))
	x := newBench(t, b)
	ask := func(p policy.Port) func(int) filter.Packet {
		return func(int) filter.Packet {
			return filter.Packet{
				In: p.Name, Source: p.MAC, Destination: policy.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EtherType: 0x0806,
				ARP: &filter.ARP{Operation: 1, SenderMAC: p.MAC, Sender: p.Addresses[0], Target: p.Addresses[0]},
			}
		}
	}
	storming, quiet := x.port("ldap-l1", "eth0"), x.port("proxy-l1", "eth0")
	const n = 10000
	start := time.Now()
	passed := x.passing(n, ask(storming))
	most := 500 + int(250*time.Since(start).Seconds()) + 1
	dropped := portCount(t, k, storming.Name, filter.Storm)
	if passed < 500 || passed > most || dropped != n-passed {
		t.Errorf("of %d broadcasts %d passed and %d were counted, want between 500 and %d to pass, all others counted", n, passed, dropped, most)
	}
	if got := x.passing(100, ask(quiet)); got != 100 {
		t.Errorf("another port's broadcasts: %d of 100 passed", got)
	}
}

// connect is the start of a TCP connection that rule proxy-out allows.
func (x *bench) connect(from policy.Port) func(int) filter.Packet {
	return func(i int) filter.Packet {
		return filter.Packet{
			In: from.Name, Source: from.MAC, Destination: filtertest.RouterMAC, EtherType: 0x0800,
			IP: &filter.IP{
				Source: from.Addresses[0], Destination: netip.MustParseAddr("198.18.0.7"), HopLimit: 64, Protocol: 6,
				SourcePort: uint16(10000 + i), DestinationPort: 443, Flags: policy.FlagSYN,
			},
		}
	}
}

// TestConnectionsPerPortAreBounded opens more connections than a port may hold: those above it are dropped and counted, an open one goes
// on, and conntrack holds no more than the limit.
func TestConnectionsPerPortAreBounded(t *testing.T) {
	const most = 100
	namespace(t)
	k, b := open(t), nantes(t, "lame-l2")
	r := unlimited(filter.Compile(b))
	eachMeter(r, func(m filter.Meter) filter.Meter {
		m.Connections = min(m.Connections, most)
		return m
	})
	bring(t, k, r)
	x := newBench(t, b)
	proxy := x.port("proxy-l1", "eth0")
	connect := x.connect(proxy)
	slowly := func(i int) filter.Packet {
		time.Sleep(5 * time.Millisecond) // nf_conncount forgets what was refused at the first of a tick's connections only
		return connect(i)
	}
	if passed := x.passing(300, slowly); passed != most {
		t.Errorf("%d connections began, want %d", passed, most)
	}
	if dropped := portCount(t, k, proxy.Name, filter.ConnLimit); dropped != 200 {
		t.Errorf("%d counted, want 200", dropped)
	}
	if n, err := k.VIPConntrack(context.Background(), proxy.Addresses); err != nil || n != most {
		t.Errorf("conntrack holds %d of the guest, %v, want %d", n, err, most)
	}
	// The last refused one still counts until the set is cleaned, each second.
	again := x.connect(proxy)
	for deadline := time.Now().Add(20 * time.Second); x.passing(1, func(int) filter.Packet { return again(5) }) != 1; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was open is held up")
		}
	}
}

// TestNewConnectionsPerSecondAreBounded opens connections as fast as a guest can.
func TestNewConnectionsPerSecondAreBounded(t *testing.T) {
	namespace(t)
	k, b := open(t), nantes(t, "lame-l2")
	bring(t, k, filter.Compile(b))
	x := newBench(t, b)
	proxy := x.port("proxy-l1", "eth0")
	const n = 10000
	start := time.Now()
	passed := x.passing(n, x.connect(proxy))
	most := 500 + int(100*time.Since(start).Seconds()) + 1
	if dropped := portCount(t, k, proxy.Name, filter.ConnLimit); passed < 500 || passed > most || dropped != n-passed {
		t.Errorf("of %d connections %d began and %d were counted, want between 500 and %d, all others counted", n, passed, dropped, most)
	}
}

func portCount(t testing.TB, k *Kernel, port string, r filter.Reason) int {
	t.Helper()
	c, err := k.Counters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return int(c.Ports[port][r].Packets)
}

// TestAPortTakesItsLimitsAlong removes a guest whose port has been held to a limit.
func TestAPortTakesItsLimitsAlong(t *testing.T) {
	namespace(t)
	k, b := open(t), nantes(t, "lame-l2")
	bring(t, k, filter.Compile(b))
	x := newBench(t, b)
	proxy := x.port("proxy-l1", "eth0")
	x.passing(10, x.connect(proxy))
	fewer := b
	fewer.Guests = slices.DeleteFunc(slices.Clone(b.Guests), func(g policy.Guest) bool { return g.Name == "proxy-l1" })
	for _, s := range bring(t, k, filter.Compile(fewer)) {
		if s.replace {
			t.Fatalf("not only elements: %s", s)
		}
	}
	for _, set := range []string{"new-from", "open-from"} {
		if got := tool(t, "", "list", "set", "bridge", filter.BridgeTable, set); got == "" || strings.Contains(got, proxy.Name) {
			t.Errorf("%s remembers the port:\n%s", set, got)
		}
	}
}

// TestAFloodLeavesChecksAlone floods a port that a rule opens on a real server: the directors' checks of that server pass all the same.
func TestAFloodLeavesChecksAlone(t *testing.T) {
	namespace(t)
	k, b := open(t), nantes(t, "lame-l2")
	bring(t, k, filter.Compile(b))
	x := newBench(t, b)
	server := x.port("ldap-l1", "eth1")
	i := slices.IndexFunc(b.Services, func(s policy.Service) bool { return slices.Contains(s.Servers, server.Guest) && len(s.Checks) > 0 })
	j := slices.IndexFunc(b.Peers, func(p policy.Peer) bool {
		return p.Role == policy.RoleDirector && p.Interface == "eth1" && p.Blade != b.Name
	})
	link := b.Segments[slices.IndexFunc(b.Segments, func(s policy.Segment) bool { return s.Network == server.Network })].Link
	from := func(source netip.Addr, mac policy.MAC, to uint16) func(int) filter.Packet {
		return func(i int) filter.Packet {
			return filter.Packet{
				In: link, Source: mac, Destination: server.MAC, EtherType: 0x0800,
				IP: &filter.IP{
					Source: source, Destination: server.Addresses[0], HopLimit: 64, Protocol: 6,
					SourcePort: uint16(10000 + i), DestinationPort: to, Flags: policy.FlagSYN,
				},
			}
		}
	}
	const n = 5000
	if passed := x.passing(n, from(netip.MustParseAddr("203.0.113.241"), filtertest.RouterMAC, 22)); passed >= n {
		t.Fatalf("all of %d connections began: nothing was flooded", n)
	}
	if passed := x.passing(100, from(b.Peers[j].Addresses[0], b.Peers[j].MAC, b.Services[i].Checks[0].First)); passed != 100 {
		t.Errorf("%d of 100 checks passed", passed)
	}
}
