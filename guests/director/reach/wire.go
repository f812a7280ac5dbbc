package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// snap is how much is read of an answer: its headers with every option.
const snap = 128

// Links opens the way out of one link and back by another. What comes back is heard by one packet socket, whose program lets through nothing but
// segments that may answer a probe: the kernel itself drops an IPv4 packet from a VIP that is on its loopback, which is right. Where it does not, since the
// VIP is withdrawn or for IPv6, it would reset a connection that it does not know; so the port of the probes belongs to a socket that hears nothing.
func Links(out, back string) func(own []netip.Addr, heard func(Answer)) (Wire, error) {
	return func(own []netip.Addr, heard func(Answer)) (Wire, error) {
		w := &wire{sources: map[bool]netip.AddrPort{}, heard: heard, fd: -1}
		if err := w.open(out, back, own); err != nil {
			_ = w.Close()
			return nil, err
		}
		return w, nil
	}
}

type wire struct {
	heard   func(Answer)
	sources map[bool]netip.AddrPort // by family: true is IPv6
	ear     *os.File                // nil: none yet
	sinks   []net.Listener
	reader  sync.WaitGroup

	mu     sync.Mutex
	fd     int // of the packet socket that sends; -1: closed
	to     int // index of the link that it sends by
	mac    policy.MAC
	failed error // why nothing is heard any more
}

func (w *wire) open(out, back string, own []netip.Addr) error {
	by, err := net.InterfaceByName(out)
	if err != nil {
		return fmt.Errorf("probe by %s: %w", out, err)
	}
	from, err := net.InterfaceByName(back)
	if err != nil {
		return fmt.Errorf("hear probes by %s: %w", back, err)
	}
	w.to = by.Index
	if copy(w.mac[:], by.HardwareAddr) != len(w.mac) {
		return fmt.Errorf("probe by %s: its address is %q", out, by.HardwareAddr)
	}
	if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	var ports []netip.AddrPort
	for _, a := range own {
		at, err := w.take(a)
		if err != nil {
			return fmt.Errorf("take a port for probes at %s: %w", a, err)
		}
		ports = append(ports, at)
	}
	if err := w.listen(from.Index, ports); err != nil {
		return fmt.Errorf("hear probes by %s: %w", back, err)
	}
	return nil
}

// take takes a port at an address, by a socket that hears nothing.
func (w *wire) take(own netip.Addr) (netip.AddrPort, error) {
	deaf := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return attach(fd, []bpf.Instruction{bpf.RetConstant{Val: 0}}) })
	}}
	deaf.SetMultipathTCP(false)
	sink, err := deaf.Listen(context.Background(), "tcp", netip.AddrPortFrom(own, 0).String())
	if err != nil {
		return netip.AddrPort{}, err
	}
	w.sinks = append(w.sinks, sink)
	at := netip.AddrPortFrom(own, sink.Addr().(*net.TCPAddr).AddrPort().Port())
	w.sources[own.Is6()] = at
	return at, nil
}

// listen hears what comes by a link for the ports. A socket for every protocol sees a packet before the family's own code does; one for IP alone
// would come after it, and have it copy each packet. Of what leaves by the link it hears nothing.
func (w *wire) listen(link int, ports []netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	w.ear = os.NewFile(uintptr(fd), "probes")
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("ignore what leaves: %w", err)
	}
	if err := attach(fd, programOf(ports)); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: link}); err != nil { // in network byte order
		return fmt.Errorf("bind packet socket: %w", err)
	}
	w.reader.Go(w.hear)
	return nil
}

func control(c syscall.RawConn, do func(fd int) error) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) { err = do(int(fd)) }), err)
}

func (w *wire) hear() {
	var buf [snap]byte
	for {
		n, err := w.ear.Read(buf[:])
		switch {
		case err == nil:
			if a, ok := Decode(buf[:n]); ok {
				w.heard(a)
			}
		case errors.Is(err, unix.ENETDOWN): // it will be up again
		default:
			w.mu.Lock()
			w.failed = err
			w.mu.Unlock()
			return
		}
	}
}

// Source is where answers of a family are heard.
func (w *wire) Source(v6 bool) (netip.AddrPort, bool) {
	a, ok := w.sources[v6]
	return a, ok
}

// Send sends a probe's segment to a real server's MAC.
func (w *wire) Send(p Probe, to policy.MAC) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.fd < 0:
		return net.ErrClosed
	case w.failed != nil:
		return w.failed
	}
	if err := unix.Sendto(w.fd, p.frame(w.mac, to), 0, &unix.SockaddrLinklayer{Ifindex: w.to}); err != nil {
		return fmt.Errorf("send probe to %s by %s: %w", p.To, to, err)
	}
	return nil
}

// Close ends the wire; nothing is heard after it.
func (w *wire) Close() error {
	w.mu.Lock()
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
		w.fd = -1
	}
	w.mu.Unlock()
	if w.ear != nil {
		_ = w.ear.Close()
	}
	for _, s := range w.sinks {
		_ = s.Close()
	}
	w.reader.Wait()
	return nil
}
