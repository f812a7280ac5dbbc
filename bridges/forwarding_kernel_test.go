//go:build kernel

package bridges

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// TestAGuestStealsNoAddress sends frames with another guest's MAC to 01:80:c2:00:00:0e from the guest www-1 and from the trunk's side.
// The bridge learns from these before any rule sees them; the other guest must go on getting its frames all the same.
func TestAGuestStealsNoAddress(t *testing.T) {
	k, want, thief, victim := twoGuests(t)
	hear := wire(t, k.path("www-2"))
	speak := wire(t, k.path("www-1"))

	lldp := frame([]byte{0x01, 0x80, 0xc2, 0, 0, 0x0e}, victim.MAC, 0x88cc, 0)
	for n := range byte(20) {
		emit(t, speak, thief.Index, lldp)
		emit(t, speak, thief.Index, frame(victim.MAC[:], thief.MAC, experimental, n+1))
	}
	got := heard(t, hear, victim.MAC)
	if got != 20 {
		t.Errorf("the victim got %d of 20 frames: its address was stolen", got)
	}
	wantNothing(t, Plan(want, observe(t, k)))
}

// TestUnknownUnicastStaysOut sends a frame to an address that nobody has: no other guest gets it.
func TestUnknownUnicastStaysOut(t *testing.T) {
	k, _, from, other := twoGuests(t)
	hear, speak := wire(t, k.path("www-2")), wire(t, k.path("www-1"))
	nobody := policy.MAC{2, 9, 9, 9, 9, 9}
	emit(t, speak, from.Index, frame(nobody[:], from.MAC, experimental, 1))
	emit(t, speak, from.Index, frame(other.MAC[:], from.MAC, experimental, 2)) // shows that the way is open
	if got := heard(t, hear, nobody); got != 0 {
		t.Errorf("a guest got %d frames for nobody", got)
	}
}

// twoGuests makes a bridge with the ports of www-1 and www-2, whose own ends are up.
func twoGuests(t *testing.T) (k *Kernel, want Spec, first, second End) {
	t.Helper()
	k = newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	want = portSpec()
	want.Namespaces = []policy.GuestName{"www-1", "www-2"}
	want.Ports = []Port{testPort("www-1.0", KindVeth, "www-1", "eth0", "br130", 3), testPort("www-2.0", KindVeth, "www-2", "eth0", "br130", 5)}
	mustConverge(t, k, want)
	have := observe(t, k)
	first, second = have.Links["www-1.0"].Inside, have.Links["www-2.0"].Inside
	up(t, inGuest(k), first.Index)
	up(t, NewKernel(Options{Namespace: k.path("www-2")}), second.Index)
	return k, want, first, second
}

// up sets a guest's end up and waits until it carries frames.
func up(t *testing.T, k *Kernel, index int) {
	t.Helper()
	msg := header(index)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	raw(t, k, unix.RTM_NEWLINK, 0, msg)
	deadline := time.Now().Add(10 * time.Second)
	for !carries(t, k, index) {
		if time.Now().After(deadline) {
			t.Fatal("no carrier")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// operUp is IF_OPER_UP of linux/if.h: the queues are ready too.
const operUp = 6

func carries(t *testing.T, k *Kernel, index int) bool {
	t.Helper()
	h, err := openSocket(k.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Socket.Close()
	messages, err := request(h, unix.RTM_GETLINK, 0, header(index))
	if err != nil || len(messages) != 1 {
		t.Fatalf("look at link %d: %v", index, err)
	}
	return number(find(messages[0][unix.SizeofIfInfomsg:], unix.IFLA_OPERSTATE)) == operUp
}

// wire sees and sends every frame of a guest's namespace.
func wire(t *testing.T, namespace string) int {
	t.Helper()
	fd := -1
	err := NewKernel(Options{Namespace: namespace}).inThread(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(nl.Swap16(unix.ETH_P_ALL)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500_000}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func frame(to []byte, from policy.MAC, etherType uint16, n byte) []byte {
	out := append(append([]byte{}, to...), from[:]...)
	return append(append(out, byte(etherType>>8), byte(etherType), n), make([]byte, 45)...)
}

func emit(t *testing.T, fd, index int, frame []byte) {
	t.Helper()
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index, Protocol: nl.Swap16(unix.ETH_P_ALL)}); err != nil {
		t.Fatal(err)
	}
}

// heard counts frames to an address until nothing has come for a while.
func heard(t *testing.T, fd int, to policy.MAC) int {
	t.Helper()
	count, buf := 0, make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			return count
		}
		if err != nil {
			t.Fatal(err)
		}
		if net.HardwareAddr(buf[:6]).String() == to.String() && n > 14 && bytes.Equal(buf[12:14], []byte{experimental >> 8, experimental & 0xff}) {
			count++
		}
	}
}
