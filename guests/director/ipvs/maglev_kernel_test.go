//go:build kernel

package ipvs

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/bladenet/bladenet/policy"
)

// TestKernelMaglevTablesAgree holds that a director which starts while a real server is down sends every client where a director
// sends it that saw the server well before, which is what lets sessions outlive a director.
func TestKernelMaglevTablesAgree(t *testing.T) {
	services := fleet()[:1]
	services[0].Protocol = policy.UDP
	all := wanted(t, services)
	down := clone(all)
	down.Services[0].Destinations[1].Weight = 0

	saw := choices(t, func(k *Kernel) { converge(t, k, all); converge(t, k, down) })
	started := choices(t, func(k *Kernel) { converge(t, k, down) })
	naive := choices(t, func(k *Kernel) {
		begun := clone(down)
		begun.Services[0].Destinations[1].Base = 0 // as if the share did not matter
		converge(t, k, begun)
	})
	if n := differ(saw, started); n != 0 {
		t.Errorf("%d of %d clients go elsewhere by a director that started later", n, len(saw))
	}
	// The measure can see a difference: without its share the server's clients are spread anew, and others with them.
	n := differ(saw, naive)
	t.Logf("a table without the server's share sends %d of %d clients elsewhere", n, len(saw))
	if n == 0 {
		t.Error("no difference without the server's share: this test shows nothing")
	}
}

func differ(a, b map[string]string) int {
	n := 0
	for client, server := range a {
		if b[client] != server {
			n++
		}
	}
	return n
}

// choices sends a datagram of each of many clients through an IPVS table in a namespace of its own and returns whom the kernel
// chose, by client port.
func choices(t *testing.T, fill func(*Kernel)) map[string]string {
	t.Helper()
	type result struct {
		chosen map[string]string
		err    error
	}
	done := make(chan result)
	go func() {
		// The goroutine's thread goes with it, and the namespace with the thread.
		r := result{}
		defer func() { done <- r }()
		namespace(t)
		if r.err = addresses(); r.err != nil {
			return
		}
		k := Open("")
		defer k.Close()
		fill(k)
		r.chosen, r.err = choose()
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.chosen
}

const clients = 500

func choose() (map[string]string, error) {
	vip := netip.MustParseAddrPort("203.0.113.10:443")
	for i := range clients {
		c, err := net.DialUDP("udp4", &net.UDPAddr{Port: 20000 + i}, net.UDPAddrFromAddrPort(vip))
		if err != nil {
			return nil, err
		}
		_, err = c.Write([]byte("x"))
		c.Close()
		if err != nil {
			return nil, err
		}
	}
	f, err := os.Open("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	chosen := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if w := strings.Fields(lines.Text()); len(w) > 6 && w[0] == "UDP" {
			chosen[w[2]] = w[5]
		}
	}
	if len(chosen) != clients {
		return nil, fmt.Errorf("%d connections, want %d", len(chosen), clients)
	}
	return chosen, lines.Err()
}

// addresses puts the VIP on the loopback and a route to the real servers into the namespace.
func addresses() error {
	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}}
	if err := netlink.LinkAdd(dummy); err != nil {
		return err
	}
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}
	for text, link := range map[string]netlink.Link{"203.0.113.10/32": lo, "10.12.1.1/24": dummy} {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add %s: %w", text, err)
		}
	}
	return netlink.LinkSetUp(dummy)
}
