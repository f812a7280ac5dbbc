package nft

import (
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Kernel is the nftables of the network namespace in which it was opened. Its connections last; it is safe for concurrent use.
type Kernel struct {
	mu   sync.Mutex
	read *nftables.Conn // dumps
	send *socket        // batches
}

// Open connects to the nftables of the calling thread's network namespace. It needs CAP_NET_ADMIN.
func Open() (*Kernel, error) {
	read, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(forceBuffers))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	send, err := dial()
	if err != nil {
		_ = read.CloseLasting()
		return nil, err
	}
	return &Kernel{read: read, send: send}, nil
}

// Close ends the connections and changes nothing in the kernel.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.send.close()
	return k.read.CloseLasting()
}

func forceBuffers(c *netlink.Conn) error { return c.SetReadBuffer(receiveBuffer) }
