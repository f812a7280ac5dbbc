package bridges

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// Options say where a Kernel works. The zero value is the process's own network namespace and the usual folder.
type Options struct {
	Namespace  string // path of the blade's network namespace; empty: the process's own
	Namespaces string // folder of the guests' namespaces; empty: that of policy.NamespacePath
	Log        *slog.Logger
}

// Kernel observes and changes the links of one network namespace. It keeps nothing between calls and may be used by several goroutines;
// concurrent Apply calls are the caller's folly.
type Kernel struct {
	namespace string
	folder    string
	log       *slog.Logger
	hook      func(operation string) error // tests: called before each change; an error stands for the kernel's
}

// NewKernel returns a Kernel. It opens nothing yet.
func NewKernel(o Options) *Kernel {
	k := &Kernel{namespace: o.Namespace, folder: o.Namespaces, log: o.Log}
	if k.folder == "" {
		k.folder = filepath.Dir(policy.NamespacePath("guest"))
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	return k
}

// requestTimeout bounds the wait for one answer of the kernel, which holds the RTNL lock while it deletes hundreds of links.
const requestTimeout = 30 * time.Second

// session is one rtnetlink socket for one call of Observe or Apply.
type session struct {
	k      *Kernel
	handle *nl.SocketHandle
}

func (k *Kernel) open() (*session, error) {
	h, err := openSocket(k.namespace)
	if err != nil {
		return nil, err
	}
	return &session{k: k, handle: h}, nil
}

func (s *session) close() { _ = s.handle.Socket.Close() }

// openSocket opens an rtnetlink socket in the namespace at path, or in the thread's own. The socket stays in that namespace whatever thread
// uses it.
func openSocket(path string) (*nl.SocketHandle, error) {
	ns, closeNS, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	defer closeNS()
	socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket in %s: %w", where(path), err)
	}
	timeout := unix.NsecToTimeval(requestTimeout.Nanoseconds())
	_ = socket.SetSendTimeout(&timeout) // both only store the value
	_ = socket.SetReceiveTimeout(&timeout)
	_ = socket.SetExtAck(true) // the kernel's own words are welcome, not needed
	return &nl.SocketHandle{Socket: socket}, nil
}

func openNamespace(path string) (netns.NsHandle, func(), error) {
	if path == "" {
		return netns.None(), func() {}, nil
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return netns.None(), nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return ns, func() { _ = ns.Close() }, nil
}

func where(path string) string {
	if path == "" {
		return "own network namespace"
	}
	return "network namespace " + path
}

// change announces an operation that changes something: the place where a cancelled context or a test's fault stops us.
func (s *session) change(ctx context.Context, operation string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	if s.k.hook != nil {
		return s.k.hook(operation)
	}
	return nil
}

// send does one acknowledged request.
func (s *session) send(ctx context.Context, operation string, kind, flags int, data ...nl.NetlinkRequestData) error {
	if err := s.change(ctx, operation); err != nil {
		return err
	}
	_, err := request(s.handle, kind, flags|unix.NLM_F_ACK, data...)
	if err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	return nil
}

func request(h *nl.SocketHandle, kind, flags int, data ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h}
	for _, d := range data {
		req.AddData(d)
	}
	return req.Execute(unix.NETLINK_ROUTE, 0)
}

// dumpAttempts bounds the retries of a dump that other changes interrupt.
const dumpAttempts = 20

// dump returns every link of the socket's namespace. A dump that a change interrupted may lack links: it is done again, whole.
func dump(ctx context.Context, h *nl.SocketHandle) ([]Link, error) {
	for attempt := 1; ; attempt++ {
		messages, err := request(h, unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC))
		if err == nil {
			return decodeLinks(messages)
		}
		interrupted := errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR)
		if !interrupted || attempt == dumpAttempts || ctx.Err() != nil {
			return nil, fmt.Errorf("list links: %w", errors.Join(err, ctx.Err()))
		}
	}
}

func decodeLinks(messages [][]byte) ([]Link, error) {
	out := make([]Link, 0, len(messages))
	for _, m := range messages {
		l, err := decodeLink(m)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// inThread runs f on a thread that is in the Kernel's network namespace, for what goes by the calling task and not by a socket: new taps and
// the files below /proc/sys/net.
func (k *Kernel) inThread(f func() error) error {
	if k.namespace == "" {
		return f()
	}
	ns, closeNS, err := openNamespace(k.namespace)
	if err != nil {
		return err
	}
	defer closeNS()
	return onLostThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter %s: %w", where(k.namespace), err)
		}
		return f()
	})
}

// onLostThread runs f on a thread of its own that ends with it: the runtime must never reuse a thread that went into another namespace.
func onLostThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its goroutine
		result <- f()
	}()
	return <-result
}

func (k *Kernel) path(guest string) string { return filepath.Join(k.folder, guest) }
