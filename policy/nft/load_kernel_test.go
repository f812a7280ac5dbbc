//go:build kernel

package nft

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
	sized "github.com/bladenet/bladenet/test/bench/fleet"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// How often rules change while packets pass, and how many packets the kernel is handed at once.
const (
	replacements = 50
	updates      = 1000
	burst        = 640
	least        = 5 * burst // packets of a kind, or the run shows nothing
)

// stream is one way over a bridge: packets that the policy lets through at all times, and packets that it never does.
type stream struct {
	name           string
	open, closed   traffic.Passage
	sent, arrived  int
	denied, leaked int
	enough         chan struct{} // closed when the least number was sent
}

// run sends both kinds in turn until the context ends.
func (s *stream) run(ctx context.Context) error {
	for ctx.Err() == nil {
		_, n, err := s.open.Send(burst)
		if err != nil {
			return err
		}
		_, wrong, err := s.closed.Send(burst)
		if err != nil {
			return err
		}
		s.sent, s.arrived, s.denied, s.leaked = s.sent+burst, s.arrived+n, s.denied+burst, s.leaked+wrong
		if s.sent == least {
			close(s.enough)
		}
	}
	return nil
}

// loaded is a blade's bridges with streams over them: requests to a director and answers of a real server.
type loaded struct {
	namespace *traffic.Namespace
	kernel    *Kernel
	streams   []*stream
}

func newLoaded(t *testing.T, size sized.Size) (*loaded, policy.Blade) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	blade, err := sized.Derive(size)
	must(err)
	x := &loaded{}
	x.namespace, err = traffic.NewNamespace()
	must(err)
	t.Cleanup(func() { x.namespace.Close() })
	router := policy.MAC{2, 0, 0, 0, 0xff, 1}
	for _, way := range []struct {
		name, bridge, from, to string
		source, dest           policy.MAC
		answer                 bool
	}{
		{
			name: "requests", bridge: "br111", from: policy.VLANLink(sized.UplinkVLAN), to: policy.PortName(sized.Director, "eth0"),
			source: router, dest: policy.MACOf(sized.Director, "eth0"),
		},
		{
			name: "answers", bridge: "br130", from: policy.PortName(sized.Server, "eth0"), to: policy.VLANLink(sized.ReturnVLAN),
			source: policy.MACOf(sized.Server, "eth0"), dest: router, answer: true,
		},
	} {
		b, err := x.namespace.NewBridge(way.bridge, map[string]net.HardwareAddr{way.from: way.source[:], way.to: way.dest[:]})
		must(err)
		s := &stream{name: way.name}
		flow := traffic.Flow{
			Source: way.source[:], Destination: way.dest[:], Answer: way.answer, Client: netip.MustParseAddr("198.18.0.0"),
			VIP: sized.FirstVIP4, VIPs: size.VIPs(), Port: sized.FirstPort, Ports: size.PortsPerVIP(),
		}
		s.open = passage(t, b, flow, way.from, way.to)
		flow.Port += 1000
		s.closed = passage(t, b, flow, way.from, way.to)
		x.streams = append(x.streams, s)
	}
	x.kernel, err = NewKernel(x.namespace.Path())
	must(err)
	t.Cleanup(func() { x.kernel.Close() })
	return x, blade
}

func passage(t *testing.T, b *traffic.Bridge, f traffic.Flow, from, to string) traffic.Passage {
	t.Helper()
	p, err := traffic.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return traffic.Passage{Bridge: b, From: from, To: to, Program: p}
}

// during runs the streams from before change begins until after it has ended. Change is to go on until it has done its own number of
// turns and the streams have sent enough: how many packets pass in a turn is the machine's.
func (x *loaded) during(t *testing.T, change func(enough func() bool)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	errs := make([]error, len(x.streams))
	for i, s := range x.streams {
		s.sent, s.arrived, s.denied, s.leaked, s.enough = 0, 0, 0, 0, make(chan struct{})
		wait.Go(func() { errs[i] = s.run(ctx) })
	}
	begin := time.Now()
	change(func() bool {
		for _, s := range x.streams {
			select {
			case <-s.enough:
			default:
				return time.Since(begin) > time.Minute // a stream that has ended says why below
			}
		}
		return true
	})
	took := time.Since(begin)
	stop()
	wait.Wait()
	for i, s := range x.streams {
		if errs[i] != nil {
			t.Fatalf("%s: %v", s.name, errs[i])
		}
		t.Logf("%s: in %v %d of %d packets arrived that may, %d of %d that may not", s.name, took.Round(time.Millisecond), s.arrived, s.sent, s.leaked, s.denied)
	}
}

// unharmed wants every packet where it belongs, and enough of them to mean something.
func (x *loaded) unharmed(t *testing.T) {
	t.Helper()
	for _, s := range x.streams {
		if s.arrived != s.sent || s.leaked != 0 || s.sent < least {
			t.Errorf("%s: %d of %d packets arrived that may, %d of %d that may not; want all of %d or more, and none", s.name, s.arrived, s.sent, s.leaked, s.denied, least)
		}
	}
}

// planFor plans from what the kernel holds and applies, so that a step can be repeated under load.
func (x *loaded) planFor(t *testing.T, want filter.Ruleset) []Step {
	t.Helper()
	have, err := x.kernel.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Plan(want, have)
	if err != nil {
		t.Fatal(err)
	}
	x.apply(t, steps)
	return steps
}

func (x *loaded) apply(t *testing.T, steps []Step) {
	t.Helper()
	if err := x.kernel.Apply(t.Context(), steps); err != nil {
		t.Fatal(err)
	}
}

// TestUpdatesUnderLoad changes rules as fast as the kernel takes them while packets come as fast as it takes them: none that may pass is lost
// and none that may not gets through.
func TestUpdatesUnderLoad(t *testing.T) {
	x, blade := newLoaded(t, sized.Size{Services: 64, Guests: 8})
	more := blade
	more.Services = append(slices.Clone(blade.Services), policy.Service{
		Name: "zz", VIPs: []netip.Addr{netip.MustParseAddr("10.200.250.1"), netip.MustParseAddr("2001:db8:f::fa01")},
		Ports: []policy.PortRange{{Protocol: policy.TCP, First: 443, Last: 443}}, Servers: []policy.GuestName{sized.Server},
	})
	base := filter.Compile(blade)
	whole := x.planFor(t, base)
	grow := x.planFor(t, filter.Compile(more))
	shrink := x.planFor(t, base)
	for _, s := range slices.Concat(grow, shrink) {
		if s.replace {
			t.Fatalf("one service more is no matter of elements: %v", s)
		}
	}
	t.Run("replacements", func(t *testing.T) {
		x.during(t, func(enough func() bool) {
			for i := 0; i < replacements || !enough(); i++ {
				x.apply(t, whole)
			}
		})
		x.unharmed(t)
	})
	t.Run("elements", func(t *testing.T) {
		x.during(t, func(enough func() bool) {
			for i := 0; i < updates/2 || !enough(); i++ {
				x.apply(t, grow)
				x.apply(t, shrink)
			}
		})
		x.unharmed(t)
	})
	if left := x.planFor(t, base); len(left) > 0 {
		t.Errorf("after all that, still planned: %v", lines(left))
	}
	// What would show if a replacement were two transactions.
	t.Run("a gap shows", func(t *testing.T) {
		x.during(t, func(func() bool) {
			if _, err := x.namespace.Run("", "nft", "delete", "table", "bridge", filter.BridgeTable); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
			x.apply(t, whole)
		})
		for _, s := range x.streams {
			if s.leaked == 0 {
				t.Errorf("%s: no forbidden packet passed without a table: the streams show nothing", s.name)
			}
		}
	})
	if whole[0].Verb != plan.Create {
		t.Errorf("the first plan is %v, want a table created", whole[0])
	}
}
