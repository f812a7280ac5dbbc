package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// socket is the netlink socket that batches go out on. It stays open: closing one waits until the kernel has freed a replaced
// table.
type socket struct {
	fd    int
	buf   []byte        // for answers; sends do not overlap
	limit time.Duration // on the wait for an answer, as the kernel was told last
	stale bool          // an answer may still come that nobody waits for
}

// errDoubtful means that the kernel's answer was lost: the batch may or may not have been done.
var errDoubtful = errors.New("the kernel's answer was lost")

const (
	receiveBuffer = 4 << 20
	sendBuffer    = 64 << 20
	answerBuffer  = 256 << 10
	answerTime    = 30 * time.Second
)

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, answerBuffer)}
	if err := s.prepare(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) prepare() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind netfilter socket: %w", err)
	}
	// A batch goes out in one piece, so the buffer must hold it; the force needs CAP_NET_ADMIN, as everything here does.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		return fmt.Errorf("enlarge send buffer: %w", err)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fmt.Errorf("enlarge receive buffer: %w", err)
	}
	return nil
}

func (s *socket) close() { unix.Close(s.fd) }

// send gives a batch to the kernel and waits for the answer to its last message. Errors name the message that was refused.
func (s *socket) send(ctx context.Context, b *batch) error {
	data, last := b.finish()
	if err := s.deadline(ctx); err != nil {
		return err
	}
	if s.stale {
		s.drain()
	}
	if err := unix.Sendto(s.fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		s.stale = true
		return fmt.Errorf("send batch of %d bytes: %w", len(data), err)
	}
	err := s.answer(b, last)
	// Behind an error there may be more of them.
	s.stale = err != nil
	return err
}

func (s *socket) deadline(ctx context.Context) error {
	left := answerTime
	if end, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(end))
	}
	if err := ctx.Err(); err != nil || left <= 0 {
		return errors.Join(context.DeadlineExceeded, err)
	}
	if left == s.limit {
		return nil
	}
	t := unix.NsecToTimeval(left.Nanoseconds())
	s.limit = left
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t)
}

// drain reads away answers to a batch that nobody waited for.
func (s *socket) drain() {
	for {
		if n, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT); err != nil || n == 0 {
			return
		}
	}
}

// answer reads until the last message is acknowledged. The kernel handles the whole batch before it answers, errors first.
func (s *socket) answer(b *batch, last uint32) error {
	var refused error
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return errors.Join(refused, fmt.Errorf("%w: %w", errDoubtful, err))
		}
		done := false
		eachMessage(s.buf[:n], func(m message) {
			if m.kind != unix.NLMSG_ERROR || len(m.body) < 4 {
				return
			}
			code := -int32(binary.NativeEndian.Uint32(m.body))
			if code != 0 && refused == nil {
				refused = fmt.Errorf("%s: %w", b.note(m.seq), unix.Errno(code))
			}
			// An error of the batch's first message is the commit's own: nothing follows it.
			done = done || m.seq == last || m.seq == 0
		})
		if done {
			return refused
		}
	}
}

func (b *batch) note(seq uint32) string {
	if int(seq) < len(b.notes) {
		return b.notes[seq]
	}
	return "batch"
}

// message is one netlink message of a datagram.
type message struct {
	kind   uint16
	seq    uint32
	sender uint32 // netlink address of the socket that asked
	body   []byte
}

// eachMessage calls do for every complete netlink message of a datagram.
func eachMessage(data []byte, do func(message)) {
	for len(data) >= headerLength {
		length := int(binary.NativeEndian.Uint32(data))
		if length < headerLength || length > len(data) {
			return
		}
		do(message{
			kind: binary.NativeEndian.Uint16(data[4:]), seq: binary.NativeEndian.Uint32(data[8:]), sender: binary.NativeEndian.Uint32(data[12:]),
			body: data[headerLength:length],
		})
		data = data[min((length+3)&^3, len(data)):]
	}
}
