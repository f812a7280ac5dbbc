//go:build kernel

package ipvs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// TestKernelTellsOfConnections: two namespaces, a cable between them, and a connection of each family through the one, of which the other
// hears, if their numbers are the same.
func TestKernelTellsOfConnections(t *testing.T) {
	here, there := cabled(t)
	services := []policy.VirtualService{
		{Service: "dns", VIP: netip.MustParseAddr("203.0.113.53"), Protocol: policy.UDP, Port: 53, Scheduler: "rr", Destinations: []policy.Destination{{Guest: "ns", Address: netip.MustParseAddr("10.0.0.9"), Port: 53, Weight: 1}}},
		{Service: "dns", VIP: netip.MustParseAddr("2001:db8:5::53"), Protocol: policy.UDP, Port: 53, Scheduler: "rr", Destinations: []policy.Destination{{Guest: "ns", Address: netip.MustParseAddr("2001:db8::9"), Port: 53, Weight: 1}}},
	}
	for _, place := range []*traffic.Namespace{here, there} {
		k := Open(place.Path())
		defer k.Close()
		want, err := Wanted(services, [][]int{{1}, {1}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		have, err := k.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Apply(t.Context(), Plan(want, have)); err != nil {
			t.Fatal(err)
		}
	}
	sync := func(place *traffic.Namespace, number, changes int) {
		t.Helper()
		k := Open(place.Path())
		defer k.Close()
		steps, err := k.Sync(t.Context(), "eth1", number)
		if err != nil || len(steps) != changes {
			t.Fatalf("number %d: %d changes, %v; want %d: %v", number, len(steps), err, changes, steps)
		}
	}
	sync(here, 7, 2)
	sync(here, 7, 0)
	sync(there, 8, 2)
	ask := func(source int) {
		t.Helper()
		for _, vip := range []string{"203.0.113.53", "2001:db8:5::53"} {
			in(t, here, func() error {
				c, err := net.DialUDP("udp", &net.UDPAddr{Port: source}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(vip), 53)))
				if err != nil {
					return err
				}
				defer c.Close()
				for range 10 { // the kernel tells of a connection from its third packet on
					if _, err := c.Write([]byte("?")); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	heard := func(source int) int {
		n := 0
		in(t, there, func() error {
			text, err := os.ReadFile("/proc/thread-self/net/ip_vs_conn_sync")
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); len(f) > 2 && f[2] == fmt.Sprintf("%04X", source) {
					n++
				}
			}
			return err
		})
		return n
	}
	ask(40001)
	time.Sleep(4 * time.Second) // a message leaves within two seconds
	if n := heard(40001); n != 0 {
		t.Errorf("heard of %d connections of another number", n)
	}
	sync(there, 7, 4)
	ask(40002)
	for deadline := time.Now().Add(20 * time.Second); heard(40002) != 2; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("heard of %d connections, want 2", heard(40002))
		}
	}
	sync(there, 0, 2)
	sync(there, 0, 0)
	k := Open(there.Path())
	defer k.Close()
	if _, err := k.Sync(t.Context(), "nosuch", 7); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is not there: %v", err)
	}
}

// cabled makes two namespaces with an eth1 each, at the two ends of a cable, and the VIPs of the test on their loopbacks.
func cabled(t *testing.T) (here, there *traffic.Namespace) {
	t.Helper()
	var spaces [2]*traffic.Namespace
	for i := range spaces {
		n, err := traffic.NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		spaces[i] = n
	}
	other, err := os.Open(spaces[1].Path())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	in(t, spaces[0], func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "eth1", PeerNamespace: netlink.NsFd(int(other.Fd()))})
	})
	for i, n := range spaces {
		for name, addrs := range map[string][]string{
			"lo":   {"203.0.113.53/32", "2001:db8:5::53/128"},
			"eth1": {fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1)},
		} {
			if err := n.Set("ipv6/conf/"+name+"/disable_ipv6", "0"); err != nil {
				t.Fatal(err)
			}
			in(t, n, func() error { return traffic.Addressed(name, addrs...) })
		}
	}
	return spaces[0], spaces[1]
}

func in(t *testing.T, n *traffic.Namespace, do func() error) {
	t.Helper()
	if err := n.Do(do); err != nil {
		t.Fatal(err)
	}
}
