package nft

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/google/nftables"
	mdl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernel is the nftables of the network namespace in which it was opened. Its connections last; it is safe for concurrent use.
type Kernel struct {
	mu        sync.Mutex
	read      *nftables.Conn  // dumps
	send      *socket         // batches
	tracked   *netlink.Handle // conntrack
	namespace string
	seen      seen
}

// seen is what the last dump found, and the ruleset's generation then: the kernel counts every transaction, whoever sends it.
type seen struct {
	generation uint32
	state      State
	valid      bool
	changed    map[tableName]map[string]bool // sets whose elements are to be read anew
}

// after notes that a batch of ours was done. If the ruleset is at the very next generation then nobody else's was: what the batch did not
// name is as it was seen, and what it named is read back. A replaced table is read whole.
func (s *seen) after(steps []Step, generation uint32) {
	next := s.generation + 1
	if next == 0 {
		next = 1 // the kernel passes over 0 (nf_tables_commit)
	}
	if !s.valid || generation != next || slices.ContainsFunc(steps, func(s Step) bool { return s.replace }) {
		s.valid = false
		return
	}
	s.generation = generation
	if s.changed == nil {
		s.changed = map[tableName]map[string]bool{}
	}
	for _, step := range steps {
		name := tableName{step.table.Family, step.table.Name}
		if s.changed[name] == nil {
			s.changed[name] = map[string]bool{}
		}
		s.changed[name][step.set.Name] = true
	}
}

// NewKernel connects to the nftables of a network namespace, given by the path of its file (/run/netns/NAME); with no path, of
// the calling thread's. It needs CAP_NET_ADMIN there.
func NewKernel(namespace string) (*Kernel, error) {
	var k *Kernel
	err := within(namespace, func() (err error) {
		k, err = connect()
		return err
	})
	if err != nil {
		return nil, err
	}
	k.namespace = namespace
	return k, nil
}

// within calls do in a network namespace. Sockets stay in the namespace in which they were opened.
func within(namespace string, do func() error) error {
	if namespace == "" {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace is thrown away with the goroutine.
		runtime.LockOSThread()
		done <- enter(namespace, do)
	}()
	return <-done
}

func enter(namespace string, do func() error) error {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", namespace, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", namespace, err)
	}
	return do()
}

func connect() (*Kernel, error) {
	read, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(forceBuffers))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	send, err := dial()
	if err != nil {
		_ = read.CloseLasting()
		return nil, err
	}
	tracked, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		send.close()
		_ = read.CloseLasting()
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return &Kernel{read: read, send: send, tracked: tracked}, nil
}

// Close ends the connections and changes nothing in the kernel.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.send.close()
	k.tracked.Close()
	return k.read.CloseLasting()
}

func forceBuffers(c *mdl.Conn) error { return c.SetReadBuffer(receiveBuffer) }
