//go:build kernel

package nft

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// TestHostTable sends packets to a blade's own stack by its management NIC, by the trunk and every VLAN link and bridge, and by a NIC
// that the policy does not name, without and with a hosts rule.
func TestHostTable(t *testing.T) {
	namespace(t)
	b := nantes(t, "lame-l1")
	guestSide := []string{b.Trunk}
	for _, s := range b.Segments {
		guestSide = append(guestSide, s.Bridge, s.Link)
	}
	h := newHost(t, append([]string{b.Management, "eth7"}, guestSide...)...)
	operator, stranger := netip.MustParseAddr("203.0.113.193"), netip.MustParseAddr("198.18.0.7")
	k := open(t)

	b.Hosts = nil
	bring(t, k, filter.Compile(b))
	h.expect("no rule: management", b.Management, stranger, 2200, true)
	for _, nic := range guestSide {
		h.expect("no rule: "+nic, nic, operator, 2200, false)
	}

	b.Hosts = []policy.Rule{{
		Name: "management", From: []netip.Prefix{netip.MustParsePrefix("203.0.113.192/28")},
		Allow: []policy.PortRange{{Protocol: policy.UDP, First: 2200, Last: 2210}},
	}}
	bring(t, k, filter.Compile(b))
	h.expect("operator", b.Management, operator, 2200, true)
	h.expect("operator, another port", b.Management, operator, 2300, false)
	h.expect("stranger", b.Management, stranger, 2200, false)
	for _, nic := range guestSide {
		h.expect(nic, nic, operator, 2200, false)
	}
	h.expect("unnamed NIC", "eth7", stranger, 2200, true)

	c, err := k.Counters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if c.Ports[b.Management][filter.HostPolicy].Packets != 2 {
		t.Errorf("drops by port: %v", c.Ports)
	}
	for _, nic := range guestSide {
		if c.Ports[nic][filter.HostFromGuest].Packets != 2 {
			t.Errorf("drops at %s: %v, want 2 for %s", nic, c.Ports[nic], filter.HostFromGuest)
		}
	}
}

// host is a stack that listens on two UDP ports, and NICs whose far ends the test holds.
type host struct {
	t       testing.TB
	fd      int
	far     map[string]int
	mac     map[string]policy.MAC
	sockets map[uint16]*net.UDPConn
}

var hostAddress = netip.MustParseAddr("10.99.0.1")

func newHost(t testing.TB, names ...string) *host {
	t.Helper()
	h := &host{t: t, far: map[string]int{}, mac: map[string]policy.MAC{}, sockets: map[uint16]*net.UDPConn{}}
	for i, name := range names {
		peer := fmt.Sprintf("far%d", i)
		h.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}))
		h.must(os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0o644))
		for _, n := range []string{name, peer} {
			link, err := netlink.LinkByName(n)
			h.must(err)
			h.must(netlink.LinkSetUp(link))
			h.far[name], h.mac[n] = link.Attrs().Index, policy.MAC(link.Attrs().HardwareAddr)
		}
	}
	h.must(os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0o644))
	first, err := netlink.LinkByName(names[0])
	h.must(err)
	h.must(netlink.AddrAdd(first, &netlink.Addr{IPNet: &net.IPNet{IP: hostAddress.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	h.must(netlink.RouteAdd(&netlink.Route{LinkIndex: first.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})) // a source without a route is a martian
	for _, p := range []uint16{2200, 2300} {
		h.sockets[p], err = net.ListenUDP("udp4", &net.UDPAddr{Port: int(p)})
		h.must(err)
		t.Cleanup(func() { h.sockets[p].Close() })
	}
	h.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	h.must(err)
	t.Cleanup(func() { unix.Close(h.fd) })
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// expect sends one packet by a NIC and says whether it must arrive.
func (h *host) expect(what, nic string, from netip.Addr, port uint16, want bool) {
	h.t.Helper()
	p := filter.Packet{
		Source: filtertest.RouterMAC, Destination: h.mac[nic], EtherType: 0x0800,
		IP: &filter.IP{Source: from, Destination: hostAddress, HopLimit: 64, Protocol: 17, SourcePort: 40000, DestinationPort: port},
	}
	h.must(unix.Sendto(h.fd, p.Frame(1), 0, &unix.SockaddrLinklayer{Ifindex: h.far[nic], Protocol: ethAll()}))
	wait := 3 * time.Second
	if !want {
		wait = 300 * time.Millisecond
	}
	h.must(h.sockets[port].SetReadDeadline(time.Now().Add(wait)))
	_, _, err := h.sockets[port].ReadFromUDP(make([]byte, 100))
	if got := err == nil; got != want {
		h.t.Errorf("%s: arrives %v, want %v", what, got, want)
	}
}
