//go:build kernel

package nft

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// traceRules is a small table of ours: one port is open by a named rule, the rest is denied in a chain of its own.
func traceRules() filter.Ruleset {
	open := filter.Rule{Comment: "open", Statements: []filter.Statement{
		filter.Match{Field: filter.IPv4Protocol, Value: []byte{protocolTCP}},
		filter.Match{Field: filter.DestinationPort, Value: []byte{0, 80}},
		filter.Decide{Kind: filter.Accept},
	}}
	deny := filter.Rule{Statements: []filter.Statement{filter.Decide{Kind: filter.Goto, Chain: "deny"}}}
	drop := filter.Rule{Statements: []filter.Statement{filter.Decide{Kind: filter.Drop}}}
	return filter.Ruleset{Tables: []filter.Table{{Family: filter.Bridge, Name: filter.BridgeTable, Chains: []filter.Chain{
		{Name: "deny", Rules: []filter.Rule{drop}},
		{Name: "forward", Hook: filter.Forward, Rules: []filter.Rule{open, deny}},
	}}}}
}

// wire is a bridge with two ports, and a socket on their far ends.
type wire struct {
	t   *testing.T
	fd  int
	far int
}

func newWire(t *testing.T) wire {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"iptables", "ip6tables"} { // where br_netfilter is, bridged packets pass the host's own rules and routes
		if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0o644); !errors.Is(err, fs.ErrNotExist) {
			must(err)
		}
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br1"}}
	must(netlink.LinkAdd(bridge))
	must(netlink.LinkSetUp(bridge))
	for _, name := range []string{"one", "two"} {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Index}, PeerName: "far-" + name}
		must(netlink.LinkAdd(veth))
		must(netlink.LinkSetUp(veth))
		must(netlink.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "far-" + name}}))
	}
	far, err := netlink.LinkByName("far-one")
	must(err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { unix.Close(fd) })
	return wire{t, fd, far.Attrs().Index}
}

func (w wire) send(port uint16) filter.Packet {
	w.t.Helper()
	p := filter.Packet{
		In: "one", Source: policy.MAC{2, 0, 0, 0, 0, 1}, Destination: policy.MAC{2, 0, 0, 0, 0, 2}, EtherType: etherIPv4,
		IP: &filter.IP{
			Source: netip.MustParseAddr("198.18.0.7"), Destination: netip.MustParseAddr("203.0.113.10"), HopLimit: 64,
			Protocol: protocolTCP, SourcePort: 40000, DestinationPort: port, Flags: policy.FlagSYN,
		},
	}
	if err := unix.Sendto(w.fd, p.Frame(0), 0, &unix.SockaddrLinklayer{Ifindex: w.far, Protocol: ethAll()}); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// tracing runs a trace in the background, from when the kernel marks packets until the test ends.
func tracing(t *testing.T, k *Kernel, what Traced) (<-chan TraceStep, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	steps, ended := make(chan TraceStep, 1000), make(chan error, 1)
	session, err := k.openTrace(what) // here: this thread is in the namespace
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- session.run(ctx, func(s TraceStep) { steps <- s }) }()
	end := func() error {
		cancel()
		return <-ended
	}
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(tool(t, "", "list", "tables"), traceTable); {
		if time.Now().After(deadline) {
			t.Fatalf("no packet is marked: %v", end())
		}
	}
	return steps, end
}

// way collects the steps of one packet.
func way(t *testing.T, steps <-chan TraceStep) []TraceStep {
	t.Helper()
	var out []TraceStep
	for {
		select {
		case s := <-steps:
			if len(out) == 0 || s.Packet == out[0].Packet {
				out = append(out, s)
			}
		case <-time.After(500 * time.Millisecond):
			return out
		}
	}
}

// TestTraceFollowsAPacket follows one packet that a rule lets through and one that is denied, and nothing else.
func TestTraceFollowsAPacket(t *testing.T) {
	namespace(t)
	k := open(t)
	bring(t, k, traceRules())
	w := newWire(t)
	steps, end := tracing(t, k, Traced{Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10")}, Rules: traceRules()})
	for _, c := range []struct {
		port uint16
		want []TraceStep
	}{
		{80, []TraceStep{{Chain: "forward", Rule: `ip protocol 6 th dport 80 accept comment "open"`, Comment: "open", Verdict: "accept"}}},
		{81, []TraceStep{{Chain: "forward", Rule: "goto deny", Verdict: "goto deny"}, {Chain: "deny", Rule: "drop", Verdict: "drop"}}},
	} {
		sent := w.send(c.port)
		got := way(t, steps)
		if len(got) == 0 || got[0].Header == nil {
			t.Fatalf("port %d: no step with headers: %v", c.port, got)
		}
		sent.Out = "two"
		if diff := cmp.Diff(sent, *got[0].Header, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Errorf("port %d: headers (-sent +shown)\n%s", c.port, diff)
		}
		for i := range got {
			got[i].Packet, got[i].Header = 0, nil
		}
		for i := range c.want {
			c.want[i].Table = "bridge bladenet"
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("port %d (-want +got)\n%s", c.port, diff)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if left := tool(t, "", "list", "tables"); strings.Contains(left, traceTable) {
		t.Errorf("left behind:\n%s", left)
	}
	w.send(80)
	if got := way(t, steps); len(got) > 0 {
		t.Errorf("followed after the end: %v", got)
	}
}

// TestTraceGoesWithItsSocket does what the end of a process does, a kill too: it closes the socket and nothing else.
func TestTraceGoesWithItsSocket(t *testing.T) {
	namespace(t)
	k := open(t)
	session, err := k.openTrace(Traced{Ports: []string{"one"}, MACs: []policy.MAC{{2, 0, 0, 0, 0, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := session.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there := tool(t, "", "list", "ruleset"); !strings.Contains(there, "flags owner") || strings.Count(there, "nftrace set 1") != 2 {
		t.Fatalf("want a table with an owner and two rules:\n%s", there)
	}
	if err := k.Trace(t.Context(), Traced{}, func(TraceStep) {}); !errors.Is(err, ErrTracing) {
		t.Errorf("a second trace: %v, want %v", err, ErrTracing)
	}
	tool(t, "", "flush", "ruleset") // a stranger's
	if there := tool(t, "", "list", "tables"); !strings.Contains(there, traceTable) {
		t.Error("a stranger removed it; then a later packet's end is not seen")
	}
	session.close()
	if left := tool(t, "", "list", "tables"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
