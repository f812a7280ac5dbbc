//go:build kernel

package nft

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

var (
	packets = flag.Int("packets", 2000, "packets to draw for each blade of the differential test")
	fleets  = flag.Int("fleets", 6, "fleets to draw for it")
)

// bench is a blade's bridges, each port a veth whose far end the test holds.
type bench struct {
	t     testing.TB
	blade policy.Blade
	far   map[string]int // index of the far end, by port
	near  map[int]string // port, by that index
	fd    int            // raw socket on every link
}

func newBench(t testing.TB, b policy.Blade) *bench {
	t.Helper()
	// No link-local addresses: their neighbour discovery would be counted.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	x := &bench{t: t, blade: b, far: map[string]int{}, near: map[int]string{}}
	for _, s := range b.Segments {
		x.bridge(s)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(ethAll()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	x.fd = fd
	return x
}

// ethAll is ETH_P_ALL in network byte order.
func ethAll() uint16 { return unix.ETH_P_ALL << 8 }

func (x *bench) bridge(s policy.Segment) {
	x.t.Helper()
	off := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: s.Bridge}, MulticastSnooping: &off}
	x.must(netlink.LinkAdd(bridge))
	x.must(netlink.LinkSetUp(bridge))
	for _, name := range filtertest.Ports(x.blade, s) {
		peer := fmt.Sprintf("far%d", len(x.far))
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Index}, PeerName: peer}
		x.must(netlink.LinkAdd(veth))
		x.must(netlink.LinkSetUp(veth))
		x.must(netlink.LinkSetLearning(veth, false)) // where a frame goes must not depend on those before
		far, err := netlink.LinkByName(peer)
		x.must(err)
		x.must(netlink.LinkSetUp(far))
		x.far[name], x.near[far.Attrs().Index] = far.Attrs().Index, name
		if mac, ok := x.macOf(name); ok {
			x.must(netlink.NeighSet(&netlink.Neigh{
				LinkIndex: veth.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: net.HardwareAddr(mac[:]),
			}))
		}
	}
}

func (x *bench) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *bench) macOf(port string) (policy.MAC, bool) {
	for _, g := range x.blade.Guests {
		for _, p := range g.Ports {
			if p.Name == port {
				return p.MAC, true
			}
		}
	}
	return policy.MAC{}, false
}

// outs is where a bridge sends a frame: to the port of its MAC, or to every other one.
func (x *bench) outs(p filter.Packet, s policy.Segment) []string {
	var all []string
	for _, name := range filtertest.Ports(x.blade, s) {
		if mac, ok := x.macOf(name); ok && mac == p.Destination {
			if name == p.In {
				return nil
			}
			return []string{name}
		}
		if name != p.In {
			all = append(all, name)
		}
	}
	return all
}

func (x *bench) send(p filter.Packet, mark uint16) {
	x.t.Helper()
	to := &unix.SockaddrLinklayer{Ifindex: x.far[p.In], Protocol: ethAll()}
	for {
		err := unix.Sendto(x.fd, p.Frame(uint32(mark)), 0, to)
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			x.must(err)
			return
		}
	}
}

// received reads what has come out of the ports, by mark, until nothing has come for a while.
func (x *bench) received(quiet time.Duration) map[uint16][]string {
	x.t.Helper()
	out := map[uint16][]string{}
	x.hear(quiet, func(port string, frame []byte) {
		if mark, ok := filter.MarkOf(frame); ok {
			out[mark] = append(out[mark], port)
		}
	})
	return out
}

// hear hands over each frame that has come out of one of our ports, until nothing has come for a while.
func (x *bench) hear(quiet time.Duration, each func(port string, frame []byte)) {
	x.t.Helper()
	buf := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(x.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(x.fd), Events: unix.POLLIN}}, int(quiet.Milliseconds()))
			if err == nil && ready == 0 {
				return
			}
			continue
		}
		x.must(err)
		ll := from.(*unix.SockaddrLinklayer)
		if port, ours := x.near[ll.Ifindex]; ours && ll.Pkttype != unix.PACKET_OUTGOING {
			each(port, buf[:n])
		}
	}
}

// TestJudgeAgreesWithKernel sends drawn packets into a blade's bridges and wants to see come out exactly what Judge lets out,
// and the drops counted under Judge's reasons.
func TestJudgeAgreesWithKernel(t *testing.T) {
	for i, name := range nantesBlades() {
		t.Run(string(name), func(t *testing.T) {
			agrees(t, nantes(t, name), uint64(i)+100, *packets)
		})
	}
	t.Logf("%d packets", len(nantesBlades())**packets)
}

// TestJudgeAgreesWithKernelOnDrawnFleets does the same for fleets that nobody wrote.
func TestJudgeAgreesWithKernelOnDrawnFleets(t *testing.T) {
	drawn := 0
	for seed := range uint64(*fleets) {
		blades, err := filtertest.Blades(seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blades {
			t.Run(fmt.Sprintf("%d-%s", seed, b.Name), func(t *testing.T) {
				agrees(t, b, seed, *packets/4)
			})
			drawn += *packets / 4
		}
	}
	t.Logf("%d packets", drawn)
}

func agrees(t *testing.T, b policy.Blade, seed uint64, count int) {
	t.Helper()
	namespace(t)
	k := open(t)
	bring(t, k, unlimited(filter.Compile(b)))
	x := newBench(t, b)
	x.received(200 * time.Millisecond)
	before := reasons(t, k)
	want, passed := x.differential(filtertest.New(b, seed), count)
	got := map[filter.Reason]int{}
	for r, n := range reasons(t, k) {
		if n -= before[r]; n > 0 {
			got[r] = n
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counters (-judge +kernel):\n%s", diff)
	}
	if len(b.Guests) > 0 && passed < count/20 {
		t.Errorf("only %d of %d frames passed", passed, count)
	}
	t.Logf("%d frames passed, dropped: %v", passed, got)
	if n, err := k.VIPConntrack(context.Background(), vips(b)); err != nil || n != 0 {
		t.Errorf("%d conntrack entries have a VIP, %v", n, err)
	}
}

// unlimited is the ruleset with limits that no test reaches: Judge knows of none.
func unlimited(r filter.Ruleset) filter.Ruleset {
	const high = 1 << 20
	eachMeter(r, func(m filter.Meter) filter.Meter {
		if m.Connections > 0 {
			m.Connections = high
		} else {
			m.Rate = filter.Limit{PerSecond: high, Burst: high}
		}
		return m
	})
	eachStatement(r, func(s filter.Statement) filter.Statement {
		if _, ok := s.(filter.Limit); ok {
			return filter.Limit{PerSecond: high, Burst: high}
		}
		return s
	})
	return r
}

func eachMeter(r filter.Ruleset, change func(filter.Meter) filter.Meter) {
	eachStatement(r, func(s filter.Statement) filter.Statement {
		if m, ok := s.(filter.Meter); ok {
			return change(m)
		}
		return s
	})
}

func eachStatement(r filter.Ruleset, change func(filter.Statement) filter.Statement) {
	for _, table := range r.Tables {
		for _, c := range table.Chains {
			for _, rule := range c.Rules {
				for i, s := range rule.Statements {
					rule.Statements[i] = change(s)
				}
			}
		}
	}
}

func vips(b policy.Blade) (out []netip.Addr) {
	for _, s := range b.Services {
		out = append(out, s.VIPs...)
	}
	return out
}

func reasons(t testing.TB, k *Kernel) map[filter.Reason]int {
	t.Helper()
	c, err := k.Counters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	out := map[filter.Reason]int{}
	for r, n := range c.Reasons {
		out[r] = int(n.Packets)
	}
	return out
}

// differential sends packets in batches and compares what comes out. It returns the drops that Judge wants counted and the
// number of frames that passed.
func (x *bench) differential(source *filtertest.Source, count int) (map[filter.Reason]int, int) {
	x.t.Helper()
	want := map[filter.Reason]int{}
	passed, wrong := 0, 0
	for sent := 0; sent < count; {
		type judged struct {
			packet filter.Packet
			out    []string
		}
		batch := map[uint16]judged{}
		for range min(400, count-sent) {
			p, segment := source.Next()
			sent++
			out := x.judge(p, segment, want)
			batch[uint16(sent)] = judged{p, out}
			x.send(p, uint16(sent))
		}
		got := x.received(100 * time.Millisecond)
		for _, mark := range slices.Sorted(maps.Keys(batch)) {
			j := batch[mark]
			slices.Sort(got[mark])
			passed += len(got[mark])
			if diff := cmp.Diff(j.out, got[mark]); diff != "" {
				if wrong++; wrong < 8 {
					text, _ := json.Marshal(j.packet)
					x.t.Errorf("comes out of (-judge +kernel):\n%s%s", diff, text)
				}
			}
		}
	}
	if wrong > 0 {
		x.t.Errorf("%d of %d packets", wrong, count)
	}
	return want, passed
}

// judge lists the ports that the packet must come out of, and counts the drops.
func (x *bench) judge(p filter.Packet, s policy.Segment, drops map[filter.Reason]int) []string {
	var out []string
	guarded := false
	for _, p.Out = range append(x.outs(p, s), "") {
		v := filter.Judge(x.blade, p)
		switch {
		case v.Guard && !guarded:
			guarded = true
			drops[v.Reason]++
		case v.Guard || p.Out == "":
		case v.Accept:
			out = append(out, p.Out)
		default:
			drops[v.Reason]++
		}
	}
	if p.Destination[0]&1 != 0 && !guarded {
		drops[filter.HostBound]++ // the bridge itself hears groups
	}
	slices.Sort(out)
	return out
}
