//go:build kernel

package ipvs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// TestKernelTellsOfConnections: two namespaces, a cable between them, and a connection of each family through the one, of which the other
// hears, if their numbers are the same.
func TestKernelTellsOfConnections(t *testing.T) {
	here, there := cabled(t)
	services := []policy.VirtualService{
		{Service: "dns", VIP: netip.MustParseAddr("203.0.113.53"), Protocol: policy.UDP, Port: 53, Scheduler: "rr", Destinations: []policy.Destination{{Guest: "ns", Address: netip.MustParseAddr("10.0.0.9"), Port: 53, Weight: 1}}},
		{Service: "dns", VIP: netip.MustParseAddr("2001:db8:5::53"), Protocol: policy.UDP, Port: 53, Scheduler: "rr", Destinations: []policy.Destination{{Guest: "ns", Address: netip.MustParseAddr("2001:db8::9"), Port: 53, Weight: 1}}},
	}
	for _, place := range []string{here, there} {
		k := Open(place)
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
	sync := func(place string, number, changes int) {
		t.Helper()
		k := Open(place)
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
	k := Open(there)
	defer k.Close()
	if _, err := k.Sync(t.Context(), "nosuch", 7); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is not there: %v", err)
	}
}

// cabled makes two namespaces with an eth1 each, at the two ends of a cable, and the VIPs and clients of the test on the first's loopback.
func cabled(t *testing.T) (here, there string) {
	t.Helper()
	var spaces [2]string
	for i := range spaces {
		spaces[i] = newSpace(t)
	}
	fd := func(path string) int {
		n, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(n) })
		return n
	}
	in(t, spaces[0], func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "eth1", PeerNamespace: netlink.NsFd(fd(spaces[1]))})
	})
	for i, path := range spaces {
		in(t, path, func() error {
			h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer h.Close()
			for name, addrs := range map[string][]string{
				"lo":   {"203.0.113.53/32", "2001:db8:5::53/128"},
				"eth1": {fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1)},
			} {
				l, err := h.LinkByName(name)
				if err == nil {
					err = h.LinkSetUp(l)
				}
				for _, a := range addrs {
					addr, parseErr := netlink.ParseAddr(a)
					if parseErr != nil {
						return parseErr
					}
					addr.Flags = unix.IFA_F_NODAD
					err = errors.Join(err, h.AddrAdd(l, addr))
				}
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		})
	}
	return spaces[0], spaces[1]
}

// newSpace makes a network namespace that lives as long as the test: a thread that waits holds it.
func newSpace(t *testing.T) string {
	t.Helper()
	made, end := make(chan string), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		made <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-end
	}()
	path := <-made
	t.Cleanup(func() { close(end) })
	return path
}

// in calls do on a thread in a namespace.
func in(t *testing.T, path string, do func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
