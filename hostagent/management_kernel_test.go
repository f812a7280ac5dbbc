//go:build kernel

package hostagent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// insideOf runs do in the network namespace at path.
func insideOf(t *testing.T, path string, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, still in the namespace
		ns, err := netns.GetFromPath(path)
		if err == nil {
			err = errors.Join(netns.Set(ns), ns.Close())
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// neighbour makes a namespace and a link from the blade's NIC near to its own far, and returns its path and a handle to it.
func neighbour(t *testing.T, blade *netlink.Handle, near, far string) (string, *netlink.Handle) {
	t.Helper()
	path, there := namespaceWith(t, "")
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: near}, PeerName: far, PeerNamespace: netlink.NsFd(ns)}
	if err := blade.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	return path, there
}

// operator is a namespace beside the blade's, joined to its management NIC, and a listener on the blade's port 22.
type operator struct {
	path string
	port string
}

func newOperator(t *testing.T, bladePath string, blade *netlink.Handle) operator {
	t.Helper()
	path, there := neighbour(t, blade, "eno2", "op0")
	for name, h := range map[string]*netlink.Handle{"eno2": blade, "op0": there} {
		l, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		text := map[string]string{"eno2": "192.0.2.250/24", "op0": "192.0.2.241/24"}[name]
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(h.AddrAdd(l, addr), h.LinkSetUp(l)); err != nil {
			t.Fatal(err)
		}
	}
	var l net.Listener
	insideOf(t, bladePath, func() (err error) {
		l, err = net.Listen("tcp4", "192.0.2.250:22")
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return operator{path: path, port: l.Addr().String()}
}

// reaches says whether a new connection of the operator to the blade comes about within a time.
func (o operator) reaches(t *testing.T, within time.Duration) bool {
	t.Helper()
	ok := false
	insideOf(t, o.path, func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		wait := unix.NsecToTimeval(int64(within))
		if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
			return err
		}
		ok = unix.Connect(s, &unix.SockaddrInet4{Port: 22, Addr: [4]byte{192, 0, 2, 250}}) == nil
		return nil
	})
	return ok
}

// managed writes the demo's fleet with a management NIC that these may reach.
func managed(t *testing.T, folder, from string) {
	t.Helper()
	files, err := policy.ReadDir("../test/fleets/one-blade")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text := strings.Replace(string(f.Data), "trunk: eno1", "trunk: eno1, management: eno2", 1)
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(f.Name)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := "hosts:\n  management: {from: [" + from + "], allow: [22/tcp]}\n"
	if err := os.WriteFile(filepath.Join(folder, "hosts.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestACutManagementPathComesBack applies a policy that locks its operator out, with the agent alive until the end of the window and
// with one that is killed and comes back after it.
func TestACutManagementPathComesBack(t *testing.T) {
	for _, killed := range []bool{false, true} {
		r := newRig(t)
		op, a := newOperator(t, r.path, r.handle), r.Agent
		managed(t, a.cfg.Policy, "192.0.2.240/28")
		if err := a.Apply(t.Context(), api.ApplyRequest{}, silent); err != nil {
			t.Fatal(err)
		}
		if !op.reaches(t, 3*time.Second) {
			t.Fatal("the operator does not reach the blade to begin with")
		}
		managed(t, a.cfg.Policy, "203.0.113.0/28")
		if err := a.Apply(t.Context(), api.ApplyRequest{Confirm: 4 * time.Second}, silent); err != nil {
			t.Fatal(err)
		}
		if op.reaches(t, time.Second) {
			t.Fatal("the policy was to lock the operator out")
		}
		if killed {
			time.Sleep(5 * time.Second)
			b, err := New(a.cfg) // what a new process does
			if err != nil {
				t.Fatal(err)
			}
			a = b
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		begin := time.Now()
		for !op.reaches(t, time.Second) {
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("killed %v: the operator is locked out", killed)
			}
		}
		t.Logf("killed %v: the operator is back after %s", killed, time.Since(begin).Round(time.Millisecond))
		until(t, "the return is a revision", func() bool { return states(t, a) == "1 followed, 2 returned from, 3 in force" })
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
