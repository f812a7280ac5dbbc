//go:build kernel

package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tap hears every netlink message of the test's namespace by the kernel's own monitor, so that what is counted is what crossed the
// socket and not what we believe to have sent.
type tap struct{ fd int }

func newTap(t *testing.T) tap {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "tap"}, LinkType: "nlmon"}); err != nil {
		t.Fatalf("add nlmon: %v", err)
	}
	link, err := netlink.LinkByName("tap")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	return tap{fd}
}

// heard returns the commands that IPVS was sent since the tap is there.
func (p tap) heard(t *testing.T, family uint16) []byte {
	t.Helper()
	var out []byte
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for data := buf[:n]; len(data) >= headerLength; {
			length := int(binary.NativeEndian.Uint32(data))
			if length <= headerLength || length > len(data) {
				break
			}
			kind, flags := binary.NativeEndian.Uint16(data[4:]), binary.NativeEndian.Uint16(data[6:])
			if kind == family && flags&unix.NLM_F_REQUEST != 0 {
				out = append(out, data[headerLength])
			}
			data = data[min((length+3)&^3, len(data)):]
		}
	}
	lost, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || lost.Drops > 0 {
		t.Fatalf("the tap missed messages: %+v, %v", lost, err)
	}
	return out
}

// TestKernelOneWeightIsOneMessage holds that of a thousand services with ten servers each, of which one weight changes, one
// message goes to the kernel.
func TestKernelOneWeightIsOneMessage(t *testing.T) {
	namespace(t)
	k := Open("")
	defer k.Close()
	want := Table{}
	for i := range 1000 {
		s := Service{
			Key: Key{Address: netip.AddrFrom4([4]byte{203, 0, byte(113 + i/250), byte(i % 250)}), Protocol: 6, Port: 80}, Scheduler: "wlc",
			Netmask: wholeAddress(false),
		}
		for j := range 10 {
			s.Destinations = append(s.Destinations, Destination{Address: netip.AddrFrom4([4]byte{10, 0, byte(i % 100), byte(j + 1)}), Port: 80, Method: Route, Weight: 100})
		}
		want.Services = append(want.Services, s)
	}
	have := converge(t, k, want)
	changed := &want.Services[500].Destinations[3]
	changed.Weight = 50
	p := newTap(t)
	if err := k.Apply(t.Context(), Plan(want, have)); err != nil {
		t.Fatal(err)
	}
	if got := p.heard(t, k.socket.family); !slices.Equal(got, []byte{commands[SetDestination]}) {
		t.Errorf("commands %v, want one that sets a destination", got)
	}
	if got := oracle(t, "", "-S", "-n"); !slices.Contains(got, fmt.Sprintf("-a -t %s:80 -r %s:80 -g -w 50", want.Services[500].Address, changed.Address)) {
		t.Error("ipvsadm does not know of the weight")
	}
}
