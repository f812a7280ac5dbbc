package hostagent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// tracedBlade is an agent of a blade of the reference fleet, whose kernel tells of packets what a test says.
func tracedBlade(t *testing.T, trace func(context.Context, nft.Traced, func(nft.TraceStep)) error) *Agent {
	t.Helper()
	files, err := policy.ReadDir(filepath.Join("..", "policy", "testdata", "fleets", "nantes"))
	if err != nil {
		t.Fatal(err)
	}
	fleet, found := policy.Load(files)
	if found.HasErrors() {
		t.Fatal(found)
	}
	blade, err := policy.Derive(fleet, "lame-l1")
	if err != nil {
		t.Fatal(err)
	}
	return &Agent{cfg: Config{Trace: trace}, log: slog.New(slog.DiscardHandler), now: wanted{blade: blade}}
}

// request is a packet to a VIP of the reference fleet as prerouting and forward show it.
func request(id uint32, port uint16, forward ...nft.TraceStep) []nft.TraceStep {
	header := filter.Packet{
		In: "vlan111", Tagged: true, Source: policy.MAC{2, 0, 0, 0, 0xff, 1}, Destination: policy.MACOf("dir-pub-l", "eth0"), EtherType: 0x0800,
		IP: &filter.IP{
			Source: netip.MustParseAddr("198.18.0.7"), Destination: netip.MustParseAddr("203.0.113.10"), Protocol: protoTCP,
			SourcePort: 40000, DestinationPort: port, Flags: policy.FlagSYN,
		},
	}
	out := []nft.TraceStep{{Packet: id, Table: "bridge bladenet", Chain: "prerouting", Rule: "notrack return", Verdict: "return", Header: &header}}
	there := header
	there.Out = policy.PortName("dir-pub-l", "eth0")
	for i, s := range forward {
		s.Packet, s.Table = id, "bridge bladenet"
		if i == 0 {
			s.Header = &there
		}
		out = append(out, s)
	}
	return out
}

func traceOf(t *testing.T, in api.TraceRequest, trace func(context.Context, nft.Traced, func(nft.TraceStep)) error) (packets []api.TracedPacket, err error) {
	t.Helper()
	err = tracedBlade(t, trace).Trace(t.Context(), in, func(e api.Event) {
		if e.Packet != nil {
			packets = append(packets, *e.Packet)
		}
	})
	return packets, err
}

func TestTraceSaysWhatBecameOfEachPacketAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := traceOf(t, api.TraceRequest{Target: "203.0.113.10"}, func(ctx context.Context, what nft.Traced, see func(nft.TraceStep)) error {
			if diff := cmp.Diff([]netip.Addr{netip.MustParseAddr("203.0.113.10")}, what.Addresses, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
				t.Errorf("followed (-want +got)\n%s", diff)
			}
			good := request(1, 443, nft.TraceStep{Chain: "forward", Rule: "accept", Verdict: "accept"})
			bad := request(2, 81, nft.TraceStep{Chain: "vip4", Verdict: "goto deny-vip-port"}, nft.TraceStep{Chain: "deny-vip-port", Rule: "drop", Verdict: "drop"})
			stays := request(3, 443)
			for i := range max(len(good), len(bad)) { // they come in at the same time
				for _, way := range [][]nft.TraceStep{good, bad, stays} {
					if i < len(way) {
						see(way[i])
					}
				}
			}
			<-ctx.Done()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var short []api.TracedPacket
		for _, p := range got {
			if len(p.Steps) == 0 || p.Steps[0].Chain != "prerouting" {
				t.Errorf("steps of %s: %v", p.Packet, p.Steps)
			}
			p.Steps = nil
			if file, _, found := strings.Cut(p.Pos, ":"); found {
				p.Pos = filepath.Base(file)
			}
			short = append(short, p)
		}
		want := []api.TracedPacket{
			{In: "vlan111", Out: "dir-pub-l.0", Packet: "198.18.0.7:40000 -> 203.0.113.10:81 tcp syn", Verdict: "drop", Reason: filter.VIPPort, Rule: "no service of 203.0.113.10 has this port"},
			{In: "vlan111", Out: "dir-pub-l.0", Packet: "198.18.0.7:40000 -> 203.0.113.10:443 tcp syn", Verdict: "accept", Rule: "service www", Pos: "20-services.yaml"},
			{In: "vlan111", Packet: "198.18.0.7:40000 -> 203.0.113.10:443 tcp syn", Verdict: "stay", Rule: "no other port takes it"},
		}
		if diff := cmp.Diff(want, short); diff != "" {
			t.Errorf("packets (-want +got)\n%s", diff)
		}
	})
}

// TestTraceTellsPacketsOfOneNumberApart follows two packets of a flow that the kernel numbers alike, because the second has the first one's buffer.
func TestTraceTellsPacketsOfOneNumberApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := traceOf(t, api.TraceRequest{Target: "203.0.113.10", Packets: 2}, func(ctx context.Context, _ nft.Traced, see func(nft.TraceStep)) error {
			for range 2 {
				for _, s := range request(1, 443, nft.TraceStep{Chain: "forward", Rule: "accept", Verdict: "accept"}) {
					see(s)
				}
			}
			<-ctx.Done()
			return nil
		})
		if err != nil || len(got) != 2 || len(got[0].Steps) != 2 || len(got[1].Steps) != 2 {
			t.Errorf("%v and %v, want two packets of two steps", got, err)
		}
	})
}

// TestTraceEnds ends by number, by time, and by the kernel's own error.
func TestTraceEnds(t *testing.T) {
	flood := func(ctx context.Context, _ nft.Traced, see func(nft.TraceStep)) error {
		for id := uint32(0); ctx.Err() == nil; id++ {
			for _, s := range request(id, 81, nft.TraceStep{Chain: "deny-vip-port", Verdict: "drop"}) {
				see(s)
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		if got, err := traceOf(t, api.TraceRequest{Target: "203.0.113.10", Packets: 7}, flood); err != nil || len(got) != 7 {
			t.Errorf("%d packets and %v, want 7", len(got), err)
		}
		begin := time.Now()
		got, err := traceOf(t, api.TraceRequest{Target: "dir-pub-l", For: time.Second, Packets: traceMost}, flood)
		if took := time.Since(begin); err != nil || took < time.Second || took > 2*time.Second || len(got) < 900 {
			t.Errorf("%d packets in %v and %v, want about 1000 in a second", len(got), took, err)
		}
		broken := errors.New("no such table")
		_, err = traceOf(t, api.TraceRequest{Target: "203.0.113.10"}, func(context.Context, nft.Traced, func(nft.TraceStep)) error { return broken })
		if !errors.Is(err, broken) {
			t.Errorf("%v, want %v", err, broken)
		}
	})
}

func TestTraceRefuses(t *testing.T) {
	for _, c := range []struct {
		in   api.TraceRequest
		want string
	}{
		{api.TraceRequest{Target: "198.18.0.7"}, "neither a VIP"},
		{api.TraceRequest{Target: "www-t1"}, "nor a guest of lame-l1"}, // another blade's
		{api.TraceRequest{Target: "203.0.113.10", For: time.Hour}, "at most"},
		{api.TraceRequest{Target: "203.0.113.10", Packets: -1}, "at most"},
		{api.TraceRequest{Target: "203.0.113.10", Packets: traceMost + 1}, "at most"},
	} {
		_, err := traceOf(t, c.in, func(context.Context, nft.Traced, func(nft.TraceStep)) error {
			t.Errorf("%+v reached the kernel", c.in)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.in, err, c.want)
		}
	}
}
