package channel

import (
	"context"
	"fmt"
	"net"

	"github.com/mdlayher/vsock"
)

// Dial connects the host to the bladeguest of the guest whose vsock context identifier is cid, and says hello. The kernel
// itself binds a context identifier to a virtual machine, so the host knows who answers.
func Dial(ctx context.Context, cid uint32) (*Client, error) {
	type result struct {
		conn *vsock.Conn
		err  error
	}
	// The library's Dial takes no context. The kernel gives up by itself after two seconds, so the goroutine ends.
	done := make(chan result, 1)
	go func() {
		conn, err := vsock.Dial(cid, Port, nil)
		done <- result{conn, err}
	}()
	select {
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		return nil, fmt.Errorf("dial guest at vsock %d: %w", cid, ctx.Err())
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("dial guest at vsock %d: %w", cid, r.err)
		}
		c, err := NewClient(ctx, r.conn, "bladenet")
		if err != nil {
			return nil, fmt.Errorf("dial guest at vsock %d: %w", cid, err)
		}
		return c, nil
	}
}

// Listen opens the guest's end on every context identifier of this machine. It hands out connections of the host only:
// a process of the guest itself could reach the same port through the loopback transport.
func Listen(port uint32) (net.Listener, error) {
	l, err := vsock.ListenContextID(anyCID, port, nil)
	if err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return hostOnly{l}, nil
}

// anyCID is VMADDR_CID_ANY of linux/vm_sockets.h. vsock.Listen would ask for the own identifier first, which fails before
// the transport's module is loaded.
const anyCID = 0xffffffff

type hostOnly struct{ net.Listener }

func (l hostOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peer, ok := conn.RemoteAddr().(*vsock.Addr); ok && peer.ContextID == vsock.Host {
			return conn, nil
		}
		_ = conn.Close()
	}
}
