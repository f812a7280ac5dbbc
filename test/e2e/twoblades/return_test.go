//go:build kernel

package twoblades

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// TestDirectReturn is one lab's life. The parts share it, and the first that fails does not end it.
func TestDirectReturn(t *testing.T) {
	eventually(t, 10*time.Minute, "both real servers answer over both VIPs", bothAnswer)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a thousand connections leave no entry", thousandConnections},
		{"a small table stops nobody", smallTable},
		{"a path with a smaller MTU", smallerMTU},
		{"datagrams in fragments", datagramsInFragments},
		{"fragments to a VIP without UDP", fragmentsWithoutUDP},
	} {
		t.Run(part.name, part.run)
	}
	untracked(t)
}

// bothAnswer wants each real server's word from each VIP.
func bothAnswer() error { return allAnswer(webVIPs) }

// allAnswer wants each real server's word from each of some VIPs.
func allAnswer(vips []netip.Addr) error {
	return traffic.In(clientSpace, func() error {
		for _, vip := range vips {
			seen := map[string]bool{}
			for range 20 {
				name, err := ask(vip)
				if err != nil {
					return err
				}
				seen[name] = true
			}
			if len(seen) != len(servers) {
				return fmt.Errorf("%s is answered by %v only", vip, seen)
			}
		}
		return nil
	})
}

func thousandConnections(t *testing.T) {
	count := askMany(t, 500)
	if count["www-1"] == 0 || count["www-2"] == 0 || count["www-1"]+count["www-2"] != 1000 {
		t.Errorf("answered by %v, want 1000 over both", count)
	}
	untracked(t)
	t.Logf("answered by %v", count)
}

// smallTable gives every blade room for 500 entries: connections to VIPs need none, so that administration has all of it.
func smallTable(t *testing.T) {
	const size = "/proc/sys/net/netfilter/nf_conntrack_max" // of the machine: each of its namespaces may have as many
	before, err := os.ReadFile(size)
	if err == nil {
		err = os.WriteFile(size, []byte("500"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(size, before, 0o644) })
	admin := netip.MustParseAddr("203.0.113.241")
	run(t, "ip", "-n", "client", "addr", "replace", admin.String()+"/32", "dev", "lo")
	serve(t, "www-2", ":22", func(c net.Conn) { _, _ = io.WriteString(c, "hello") })

	count := askMany(t, 300)
	if count["www-1"]+count["www-2"] != 600 {
		t.Errorf("answered: %v, want 600", count)
	}
	errs := each(clientSpace, 30, func(int) error {
		said, err := talk(netip.AddrPortFrom(admin, 0), netip.MustParseAddrPort("198.51.100.12:22"), "", 15*time.Second)
		if err == nil && said != "hello" {
			err = fmt.Errorf("it said %q", said)
		}
		return err
	})
	if len(errs) > 0 {
		t.Errorf("%d of 30 admin connections failed, first: %v", len(errs), errs[0])
	}
	if entries := strings.TrimSpace(on(t, "lame-l2", "conntrack", "-C")); entries == "0" {
		t.Error("not even admin connections are tracked: the test shows nothing")
	}
	untracked(t)
}

// serve listens in a real server's network until the test ends.
func serve(t *testing.T, server, address string, answer func(net.Conn)) {
	t.Helper()
	var l net.Listener
	err := traffic.In(spaceOf(t, server), func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
}

// fileSize is what a download has to bring.
const fileSize = 3 << 20

// smallerMTU downloads over a router that must tell the real server, through the VIP, to send smaller packets: its message is addressed to
// the VIP, meets the director, and must reach the real server that the connection belongs to.
func smallerMTU(t *testing.T) {
	const narrow, wide = "1400", "1500"
	run(t, "ip", "-n", "router", "link", "set", "users", "mtu", narrow)
	defer run(t, "ip", "-n", "router", "link", "set", "users", "mtu", wide)
	for name := range servers {
		file := append([]byte(name+"\n"), make([]byte, fileSize)...)
		serve(t, name, fmt.Sprintf(":%d", filePort), func(c net.Conn) { _, _ = c.Write(file) })
	}
	for _, vip := range webVIPs {
		seen := map[string]int{}
		errs := each(clientSpace, 12, func(int) error {
			got, err := talk(netip.AddrPort{}, netip.AddrPortFrom(vip, filePort), "", 30*time.Second)
			name, rest, _ := strings.Cut(got, "\n")
			if err != nil || len(rest) != fileSize {
				return fmt.Errorf("download from %s (%s): %d bytes, %w", vip, name, len(rest), err)
			}
			return nil
		})
		for _, err := range errs {
			t.Error(err)
		}
		for name := range servers {
			if out := run(t, "nsenter", "--net="+spaceOf(t, name), "ip", "route", "get", userOf(vip), "from", vip.String()); strings.Contains(out, "mtu "+narrow) {
				seen[name]++
			}
		}
		if len(seen) == 0 {
			t.Errorf("%s: no real server has learned of the MTU: the test shows nothing", vip)
		}
		t.Logf("%s: real servers that learned of the MTU: %v", vip, seen)
	}
}

// userOf is the client's address in a VIP's family.
func userOf(vip netip.Addr) string {
	if vip.Is4() {
		return "198.18.0.7"
	}
	return "2001:db8:c0::7"
}

// datagramsInFragments sends datagrams that need three packets and wants them back.
func datagramsInFragments(t *testing.T) {
	for name := range servers {
		for _, vip := range udpVIPs {
			echo(t, name, netip.AddrPortFrom(vip, echoPort))
		}
	}
	question := bytes.Repeat([]byte("bladenet"), 500)
	for _, vip := range udpVIPs {
		errs := each(clientSpace, 20, func(int) error {
			c, err := net.Dial("udp", netip.AddrPortFrom(vip, echoPort).String())
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(15 * time.Second))
			if _, err := c.Write(question); err != nil {
				return err
			}
			answer := make([]byte, 9000)
			n, err := c.Read(answer)
			if err == nil && !bytes.Equal(answer[:n], question) {
				err = fmt.Errorf("%d other bytes came back", n)
			}
			return err
		})
		if len(errs) > 0 {
			t.Errorf("%s: %d of 20 datagrams of %d bytes failed, first: %v", vip, len(errs), len(question), errs[0])
		}
	}
}

// echo answers datagrams in a real server, from the VIP, until the test ends.
func echo(t *testing.T, server string, at netip.AddrPort) {
	t.Helper()
	var c *net.UDPConn
	err := traffic.In(spaceOf(t, server), func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 9000)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
}

// fragmentsWithoutUDP sends pieces of packets, the first and later ones, and looks at the director's port for them. Those to a VIP with UDP
// must be there, or the look means nothing.
func fragmentsWithoutUDP(t *testing.T) {
	ear := listenAt(t, blades[0], "dir-1.0")
	const pieces = 10
	for i, vip := range webVIPs {
		for _, target := range []netip.Addr{vip, udpVIPs[i]} {
			for _, piece := range []filter.Piece{filter.FirstFragment, filter.LaterFragment} {
				for range pieces {
					sendPiece(t, target, piece)
				}
			}
		}
	}
	heard := map[netip.Addr]int{}
	eventually(t, 20*time.Second, "the fragments to a VIP with UDP arrive", func() error {
		hear(t, ear, heard)
		for _, vip := range udpVIPs {
			if heard[vip] < 2*pieces {
				return fmt.Errorf("heard %v, want %d to %s", heard, 2*pieces, vip)
			}
		}
		return nil
	})
	for _, vip := range webVIPs {
		if heard[vip] > 0 {
			t.Errorf("%d of %d fragments to %s have passed", heard[vip], 2*pieces, vip)
		}
	}
}

// listenAt opens an ear for every frame that leaves by a port of a blade.
func listenAt(t *testing.T, blade, port string) int {
	t.Helper()
	fd := -1
	err := traffic.In("/run/netns/"+blade, func() (err error) {
		const all = unix.ETH_P_ALL << 8 // in network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all); err != nil {
			return err
		}
		link, err := net.InterfaceByName(port)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// hear counts the fragments that have come, by the VIP that they go to.
func hear(t *testing.T, fd int, heard map[netip.Addr]int) {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		ip := buf[min(14, n):n]
		switch {
		case len(ip) >= 20 && ip[0]>>4 == 4 && (ip[6]&0x3f != 0 || ip[7] != 0): // more to come, or an offset
			heard[netip.AddrFrom4([4]byte(ip[16:20]))]++
		case len(ip) >= 40 && ip[0]>>4 == 6 && ip[6] == unix.IPPROTO_FRAGMENT:
			heard[netip.AddrFrom16([16]byte(ip[24:40]))]++
		}
	}
}

// sendPiece sends one piece of a datagram from the client to a VIP.
func sendPiece(t *testing.T, vip netip.Addr, piece filter.Piece) {
	t.Helper()
	ip := &filter.IP{
		Source: netip.MustParseAddr(userOf(vip)), Destination: vip, HopLimit: 64, Piece: piece, Protocol: unix.IPPROTO_UDP,
		SourcePort: 40000, DestinationPort: echoPort,
	}
	domain, kind := unix.AF_INET, uint16(0x0800)
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(vip.AsSlice()[:4])}
	if vip.Is6() {
		domain, kind = unix.AF_INET6, 0x86dd
		to = &unix.SockaddrInet6{Addr: vip.As16()}
	}
	packet := filter.Packet{EtherType: kind, IP: ip}.Frame(0)[14:]
	err := traffic.In(clientSpace, func() error {
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, packet, 0, to)
	})
	if err != nil {
		t.Fatalf("send a fragment to %s: %v", vip, err)
	}
}
