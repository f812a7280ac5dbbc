//go:build kernel

package hostagent

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// newWire gives a blade the trunk eno1 and returns a socket on the wire's other end, which is in a namespace of its own.
func newWire(t *testing.T, blade *netlink.Handle) int {
	t.Helper()
	path, there := neighbour(t, blade, "eno1", "wire")
	end, err := there.LinkByName("wire")
	if err != nil {
		t.Fatal(err)
	}
	up, err := blade.LinkByName("eno1")
	if err := errors.Join(err, there.LinkSetUp(end), blade.LinkSetUp(up)); err != nil {
		t.Fatal(err)
	}
	var socket int
	insideOf(t, path, func() (err error) {
		socket, err = packetSocket(end.Attrs().Index)
		return err
	})
	t.Cleanup(func() { unix.Close(socket) })
	return socket
}

// packetSocket sees and sends whole frames of one link, or of all where index is 0. It does not wait.
func packetSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(everyType()))
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everyType(), Ifindex: index}); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// everyType is ETH_P_ALL as it stands on the wire.
func everyType() uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
}

// intruder sends frames that neither of two policies allows, from the wire and from inside the guest, all the time, and looks for
// them on the other side.
type intruder struct {
	wire     int
	fromWire map[policy.VLANID][]string // frames, without their tag
	byGuest  map[string][]string        // frames, by the guest's interface
	outside  map[string]string          // frames that must not reach the wire, and what they are
	within   map[string]string          // frames that must not reach the guest

	sent    atomic.Int64
	guest   atomic.Int64 // sent inside the guest
	mu      sync.Mutex
	leaks   map[string]int
	stop    chan struct{}
	workers sync.WaitGroup
}

// newIntruder begins to knock, with the attacks on blades that have these policies: those that are attacks on each of them that has a
// guest at all.
func newIntruder(t *testing.T, wire int, policies ...[]policy.File) *intruder {
	t.Helper()
	x := &intruder{
		wire: wire, fromWire: map[policy.VLANID][]string{}, byGuest: map[string][]string{}, outside: map[string]string{}, within: map[string]string{},
		leaks: map[string]int{}, stop: make(chan struct{}),
	}
	seen, guested := map[knock]int{}, 0
	for _, files := range policies {
		fleet, found := policy.Load(files)
		if files == nil || found.HasErrors() {
			continue
		}
		b, err := policy.Derive(fleet, "lame-l1")
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Guests) > 0 {
			guested++
		}
		for k := range knocks(b) {
			seen[k]++
		}
	}
	for k, n := range seen {
		if n == guested {
			x.take(k)
		}
	}
	for _, work := range []func(){x.knock, x.visit} {
		x.workers.Go(func() {
			runtime.LockOSThread() // it may end in another namespace; the thread ends with it
			work()
		})
	}
	return x
}

// knock is a frame that must not pass: from the wire on a VLAN, or from the guest's interface.
type knock struct {
	vlan         policy.VLANID
	guest        string
	class, frame string
}

func (x *intruder) take(k knock) {
	if k.guest == "" {
		x.fromWire[k.vlan] = append(x.fromWire[k.vlan], k.frame)
		x.within[k.frame] = k.class
		return
	}
	x.byGuest[k.guest] = append(x.byGuest[k.guest], k.frame)
	x.outside[k.frame] = k.class
}

func knocks(b policy.Blade) map[knock]bool {
	out := map[knock]bool{}
	vlan := map[string]policy.VLANID{}
	for _, s := range b.Segments {
		vlan[s.Link] = s.VLAN
	}
	for _, a := range filtertest.LinkAttacks(b) {
		out[knock{vlan: vlan[a.Packet.In], class: a.Class, frame: string(a.Frame(0))}] = true
	}
	for _, g := range b.Guests {
		for _, a := range filtertest.Attacks(b, g.Name) {
			for _, p := range g.Ports {
				if p.Name == a.Packet.In && g.Name == "www-1" {
					out[knock{guest: p.Interface, class: a.Class, frame: string(a.Frame(0))}] = true
				}
			}
		}
		for _, p := range g.Ports {
			for _, addr := range p.Addresses {
				out[knock{vlan: p.VLAN, class: "a port that is not open", frame: string(unasked(p.MAC, addr).Frame(0))}] = true
			}
		}
	}
	return out
}

// unasked opens a connection to a port that no policy names.
func unasked(to policy.MAC, addr netip.Addr) filter.Packet {
	ip := filter.IP{
		Source: netip.MustParseAddr("198.18.0.7"), Destination: addr, HopLimit: 64, Protocol: 6, SourcePort: 40000, DestinationPort: 4, Flags: policy.FlagSYN,
	}
	p := filter.Packet{Source: filtertest.RouterMAC, Destination: to, EtherType: 0x0800, IP: &ip}
	if addr.Is6() {
		p.EtherType, ip.Source = 0x86dd, netip.MustParseAddr("2001:db8:c0::7")
	}
	return p
}

// pause lies between two rounds of knocking: short against an apply, long enough to leave an emulated machine time for it.
const pause = 20 * time.Millisecond

// knock sends on the wire, tagged, and reads what comes out of the blade.
func (x *intruder) knock() {
	for x.goesOn() {
		for vlan, frames := range x.fromWire {
			for _, f := range frames {
				tagged := f[:12] + string([]byte{0x81, 0x00, byte(vlan >> 8), byte(vlan)}) + f[12:]
				if _, err := unix.Write(x.wire, []byte(tagged)); err == nil {
					x.sent.Add(1)
				}
			}
		}
		x.read(x.wire, x.outside)
	}
}

// visit goes into the guest's namespace as often as it is made anew, sends from there and reads what comes in.
func (x *intruder) visit() {
	home, err := netns.Get()
	if err != nil {
		x.leak("no way back: " + err.Error())
		return
	}
	defer home.Close()
	var in guestSockets
	defer in.close()
	for x.goesOn() {
		in.renew(home)
		for name, fd := range in.links {
			for _, f := range x.byGuest[name] {
				if _, err := unix.Write(fd, []byte(f)); err == nil {
					x.guest.Add(1)
				}
			}
			x.read(fd, x.within)
		}
	}
}

// guestSockets are sockets on the links in the namespace of www-1.
type guestSockets struct {
	inode uint64
	links map[string]int
}

func (g *guestSockets) close() {
	for _, fd := range g.links {
		unix.Close(fd)
	}
	g.links = nil
}

// renew opens the sockets when there is another namespace, or a link more in it, than it knows.
func (g *guestSockets) renew(home netns.NsHandle) {
	path := policy.NamespacePath("www-1")
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		g.close()
		return
	}
	if st.Ino == g.inode && len(g.links) == 2 {
		return
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return
	}
	defer ns.Close()
	g.close()
	g.inode, g.links = st.Ino, map[string]int{}
	if netns.Set(ns) != nil {
		return // a file before the namespace is mounted on it
	}
	for _, name := range []string{"eth0", "eth1"} {
		if l, err := netlink.LinkByName(name); err == nil {
			if fd, err := packetSocket(l.Attrs().Index); err == nil {
				g.links[name] = fd
			}
		}
	}
	_ = netns.Set(home)
}

func (x *intruder) goesOn() bool {
	select {
	case <-x.stop:
		return false
	case <-time.After(pause):
		return true
	}
}

// read looks at what a socket has received, which its own frames are not.
func (x *intruder) read(fd int, forbidden map[string]string) {
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil || n == 0 {
			return
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if class, bad := forbidden[string(buf[:n])]; bad {
			x.leak(class)
		}
	}
}

func (x *intruder) leak(class string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.leaks[class]++
}

// end stops knocking and says what came through.
func (x *intruder) end(t *testing.T, after int) {
	t.Helper()
	close(x.stop)
	x.workers.Wait()
	if len(x.leaks) > 0 {
		t.Errorf("killed after step %d: frames came through: %v", after, x.leaks)
	}
	if x.sent.Load() < 100 {
		t.Errorf("killed after step %d: only %d frames were sent: the test shows nothing", after, x.sent.Load())
	}
}

// TestTheIntruderSeesAHole shows that what the crash tests look for can be seen: without the filter it comes through, both ways.
func TestTheIntruderSeesAHole(t *testing.T) {
	path, handle := namespaceWith(t, "")
	wire := newWire(t, handle)
	dir := t.TempDir()
	one := oneServer(t)
	putPolicy(t, dir, one)
	crashed(t, path, dir, 0)
	insideOf(t, path, func() error { return exec.Command("nft", "flush", "ruleset").Run() })
	x := newIntruder(t, wire, one)
	both := func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		in, out := 0, 0
		for class := range x.leaks {
			for _, c := range x.within {
				in += number(c == class)
			}
			for _, c := range x.outside {
				out += number(c == class)
			}
		}
		return in > 0 && out > 0
	}
	until(t, "frames come through a blade without a filter, both ways", both)
	close(x.stop)
	x.workers.Wait()
	crashed(t, path, dir, 0)
	verifyAfterCrash(t, path, dir, 0)
	if x.guest.Load() == 0 || x.sent.Load() == 0 {
		t.Errorf("sent %d on the wire, %d inside the guest", x.sent.Load(), x.guest.Load())
	}
	if _, err := os.Stat(policy.NamespacePath("www-1")); err == nil {
		t.Error("the guest's namespace is left")
	}
}
