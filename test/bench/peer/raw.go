package peer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Raw hands finished netlink messages to the kernel.
type Raw struct {
	fd  int
	buf []byte
}

// DialRaw opens a socket of a netlink protocol in the calling thread's namespace.
func DialRaw(protocol int) (*Raw, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	r := &Raw{fd: fd, buf: make([]byte, 256<<10)}
	for _, err := range []error{
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}),
	} {
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("prepare netlink socket: %w", err)
		}
	}
	return r, nil
}

// Close closes the socket.
func (r *Raw) Close() error { return unix.Close(r.fd) }

// Send sends messages in one piece and waits for so many acknowledgements. The first refusal is its error.
func (r *Raw) Send(messages []byte, acknowledgements int) error {
	if err := unix.Sendto(r.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(messages), err)
	}
	var refused error
	for acknowledgements > 0 {
		n, _, err := unix.Recvfrom(r.fd, r.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return errors.Join(refused, fmt.Errorf("wait for an answer: %w", err))
		}
		for data := r.buf[:n]; len(data) >= unix.SizeofNlMsghdr+4; {
			length := int(binary.NativeEndian.Uint32(data))
			if length < unix.SizeofNlMsghdr+4 || length > len(data) {
				return errors.New("read an answer: it is cut short")
			}
			if binary.NativeEndian.Uint16(data[4:]) == unix.NLMSG_ERROR {
				acknowledgements--
				code := -int32(binary.NativeEndian.Uint32(data[unix.SizeofNlMsghdr:]))
				if code != 0 && refused == nil {
					refused = unix.Errno(code)
				}
			}
			data = data[min((length+3)&^3, len(data)):]
		}
		if refused != nil {
			return refused
		}
	}
	return nil
}
