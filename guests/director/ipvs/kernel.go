package ipvs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	lib "github.com/moby/ipvs"
)

// opTimeout bounds an operation whose context has no deadline, and stepTimeout what each step of a long one adds. The largest
// table that was measured took three seconds to read, on a machine fifty times too slow.
const (
	opTimeout   = 20 * time.Second
	stepTimeout = 10 * time.Millisecond
)

// ErrNoIPVS is in the chain of an error when the kernel has no IPVS: the library itself would then answer every question with
// nothing and no error.
var ErrNoIPVS = errors.New("this kernel has no IPVS; load module ip_vs")

// Kernel is the IPVS of one network namespace.
type Kernel struct {
	namespace string

	mu      sync.Mutex
	handle  *lib.Handle // reads; nil: open again
	changes *socket     // nil: open again
}

// Open returns the IPVS of the namespace at path; "" is the caller's own. The kernel itself is met at the first operation.
func Open(namespace string) *Kernel { return &Kernel{namespace: namespace} }

// Close releases the kernel's sockets.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hangUp()
	if k.handle != nil {
		k.handle.Close()
		k.handle = nil
	}
}

// hangUp closes the socket that changes go out on.
func (k *Kernel) hangUp() {
	if k.changes != nil {
		k.changes.close()
		k.changes = nil
	}
}

// do runs op with the library's handle. The library waits for ever for an answer that was lost, so op runs beside us: when its
// time is over the handle is closed, which ends it, and the next operation opens another.
func (k *Kernel) do(ctx context.Context, limit time.Duration, op func(context.Context, *lib.Handle) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if k.handle == nil {
		h, err := open(k.namespace)
		if err != nil {
			return err
		}
		k.handle = h
	}
	h := k.handle
	done := make(chan error, 1)
	go func() { done <- op(ctx, h) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		h.Close()
		k.handle = nil
		return fmt.Errorf("no answer of the kernel: %w", ctx.Err())
	}
}

// open looks for IPVS first, because the library remembers for the life of the process that it was not there.
func open(namespace string) (*lib.Handle, error) {
	if _, err := os.Stat("/proc/thread-self/net/ip_vs"); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNoIPVS
		}
		return nil, fmt.Errorf("look for ipvs: %w", err)
	}
	h, err := lib.New(namespace)
	if err != nil {
		return nil, fmt.Errorf("open ipvs: %w", err)
	}
	return h, nil
}
