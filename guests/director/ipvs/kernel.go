package ipvs

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// opTimeout bounds the wait for one answer of the kernel when the context has no deadline, and stepTimeout what each change of a long
// run adds.
const (
	opTimeout   = 20 * time.Second
	stepTimeout = 10 * time.Millisecond
)

// ErrNoIPVS is in the chain of an error when the kernel has no IPVS.
var ErrNoIPVS = errors.New("this kernel has no IPVS; load module ip_vs")

// Kernel is the IPVS of one network namespace.
type Kernel struct {
	namespace string

	mu     sync.Mutex
	socket *socket // nil: open again
}

// Open returns the IPVS of the namespace at path; "" is the caller's own. The kernel itself is met at the first operation.
func Open(namespace string) *Kernel { return &Kernel{namespace: namespace} }

// Close releases the kernel's socket.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hangUp()
}

func (k *Kernel) hangUp() {
	if k.socket != nil {
		k.socket.close()
		k.socket = nil
	}
}

// with runs op with a socket. One that lost an answer is closed: what comes on it later belongs to nobody.
func (k *Kernel) with(op func(*socket) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.socket == nil {
		s, err := dial(k.namespace)
		if err != nil {
			return fmt.Errorf("open ipvs: %w", err)
		}
		k.socket = s
	}
	err := op(k.socket)
	if k.socket.lost {
		k.hangUp()
	}
	return err
}
