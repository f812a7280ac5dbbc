package ipvs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a generic netlink socket to the IPVS of one namespace. Many changes go out in one piece: a round trip for each
// costs more than the kernel takes for the change.
type socket struct {
	fd     int
	family uint16 // the number that the kernel gave IPVS
	seq    uint32
	buf    []byte
	lost   bool // an answer: what comes later belongs to nobody
}

const (
	atOnce        = 256 // changes in one piece: their acknowledgements fit the receive buffer
	receiveBuffer = 4 << 20
	headerLength  = unix.SizeofNlMsghdr
	genlHeader    = 4
)

// dial opens a socket in the namespace at path; "" is the caller's own.
func dial(path string) (*socket, error) {
	s := &socket{buf: make([]byte, 64<<10)}
	var err error
	if s.fd, err = genericSocket(path); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// genericSocket makes a socket in a namespace; it stays there.
func genericSocket(path string) (fd int, err error) {
	open := func() error {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
		return err
	}
	if path == "" {
		return fd, open()
	}
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ns)
	done := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace is thrown away with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- open()
	}()
	err = <-done
	return fd, err
}

func (s *socket) prepare() error {
	// Without the force, which needs more rights than IPVS does, fewer acknowledgements fit; a lost one is an error, not a wrong table.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return s.findFamily()
}

// findFamily asks for IPVS's number, which loads the module.
func (s *socket) findFamily() error {
	var m messages
	start := m.open(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, 0, 0)
	m.bytes(unix.CTRL_ATTR_FAMILY_NAME, append([]byte(familyName), 0))
	m.close(start)
	if err := s.wait(context.Background(), opTimeout); err != nil {
		return err
	}
	if err := unix.Sendto(s.fd, m.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
	if err != nil {
		return err
	}
	found := errors.New("no number for IPVS in the kernel's answer")
	eachMessage(s.buf[:n], func(kind uint16, _ uint32, body []byte) {
		if kind == unix.NLMSG_ERROR {
			found = answered(body)
			if errors.Is(found, unix.ENOENT) {
				found = ErrNoIPVS
			}
			return
		}
		if id, ok := familyID(body); ok {
			s.family, found = id, nil
		}
	})
	return found
}

// familyID reads the number out of an answer's attributes.
func familyID(body []byte) (uint16, bool) {
	if len(body) < genlHeader {
		return 0, false
	}
	for kind, value := range eachAttribute(body[genlHeader:]) {
		if kind == unix.CTRL_ATTR_FAMILY_ID && len(value) >= 2 {
			return binary.NativeEndian.Uint16(value), true
		}
	}
	return 0, false
}

// eachAttribute walks the complete attributes of a run.
func eachAttribute(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= 4 {
			length := int(binary.NativeEndian.Uint16(data))
			if length < 4 || length > len(data) || !yield(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[4:length]) {
				return
			}
			data = data[min((length+3)&^3, len(data)):]
		}
	}
}

// dump asks a question whose answer is a list and calls do with the attributes of each entry.
func (s *socket) dump(ctx context.Context, command byte, ask func(*messages), do func(attributes []byte) error) error {
	var m messages
	s.seq++
	start := m.open(s.family, command, unix.NLM_F_DUMP, s.seq)
	if ask != nil {
		ask(&m)
	}
	m.close(start)
	if err := s.wait(ctx, opTimeout); err != nil {
		return err
	}
	if err := unix.Sendto(s.fd, m.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.lost = true
		return fmt.Errorf("ask the kernel: %w", err)
	}
	s.lost = true // until the list has ended
	var failed error
	for s.lost {
		n, err := s.receive()
		if err != nil {
			return err
		}
		eachMessage(s.buf[:n], func(kind uint16, seq uint32, body []byte) {
			switch {
			case seq != s.seq || !s.lost:
			case kind == unix.NLMSG_ERROR, kind == unix.NLMSG_DONE:
				s.lost = false
				if len(body) >= 4 {
					failed = errors.Join(failed, answered(body))
				}
			case kind == s.family && len(body) >= genlHeader && failed == nil:
				failed = do(body[genlHeader:])
			}
		})
	}
	return failed
}

// receive reads one datagram into the buffer. Without one in time the socket is lost.
func (s *socket) receive() (int, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			err = context.DeadlineExceeded
		}
		if err != nil {
			s.lost = true
			return 0, fmt.Errorf("no answer of the kernel: %w", err)
		}
		return n, nil
	}
}

// wait bounds how long an answer may take: to the context's end, at most the limit.
func (s *socket) wait(ctx context.Context, limit time.Duration) error {
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	if err := ctx.Err(); err != nil || limit <= 0 {
		return errors.Join(context.DeadlineExceeded, err)
	}
	t := unix.NsecToTimeval(limit.Nanoseconds())
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t)
}

// steps does at most atOnce steps and says what became of each. An error means that this is not known.
func (s *socket) steps(ctx context.Context, steps []Step) ([]error, error) {
	var m messages
	first := s.seq + 1
	for _, step := range steps {
		s.seq++
		m.step(step, s.family, s.seq)
	}
	return s.acknowledged(ctx, m, first, len(steps))
}

// acknowledged sends n messages, numbered from first on, and returns the answer to each. An error means that they are not known.
func (s *socket) acknowledged(ctx context.Context, m messages, first uint32, n int) ([]error, error) {
	if err := s.wait(ctx, opTimeout+time.Duration(n)*stepTimeout); err != nil {
		return nil, err
	}
	if err := unix.Sendto(s.fd, m.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.lost = true
		return nil, fmt.Errorf("send %d changes: %w", n, err)
	}
	results := make([]error, n)
	for left := n; left > 0; {
		n, err := s.receive()
		if err != nil {
			return nil, err
		}
		eachMessage(s.buf[:n], func(kind uint16, seq uint32, body []byte) {
			if at := seq - first; kind == unix.NLMSG_ERROR && at < uint32(len(results)) {
				results[at] = answered(body)
				left--
			}
		})
	}
	return results, nil
}

// answered is the outcome in the body of an acknowledgement.
func answered(body []byte) error {
	if len(body) < 4 {
		return errors.New("the kernel's answer is cut short")
	}
	if code := -int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(code)
	}
	return nil
}

// eachMessage calls do for every complete netlink message of a datagram.
func eachMessage(data []byte, do func(kind uint16, seq uint32, body []byte)) {
	for len(data) >= headerLength {
		length := int(binary.NativeEndian.Uint32(data))
		if length < headerLength || length > len(data) {
			return
		}
		do(binary.NativeEndian.Uint16(data[4:]), binary.NativeEndian.Uint32(data[8:]), data[headerLength:length])
		data = data[min((length+3)&^3, len(data)):]
	}
}
