//go:build kernel

package inside

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// newNamespace makes a network namespace that lives as long as the test and returns its path.
func newNamespace(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	}()
	if err := <-result; err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// addVeth makes a veth in the namespace, with its peer in the same one, as a stranger would name it.
func addVeth(t testing.TB, ns, name string, mac policy.MAC) {
	t.Helper()
	do(t, ns, func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac[:]}, PeerName: "p" + name}); err != nil {
			return err
		}
		peer, err := h.LinkByName("p" + name)
		if err != nil {
			return err
		}
		return h.LinkSetUp(peer)
	})
}

func do(t testing.TB, ns string, f func(h *netlink.Handle) error) {
	t.Helper()
	err := enter(ns, func() error {
		h, err := openHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func observeIn(t testing.TB, ns string, want policy.Inside) State {
	t.Helper()
	s, err := Observe(context.Background(), ns, want)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mustConverge applies one plan and fails unless that was all.
func mustConverge(t testing.TB, ns string, want policy.Inside) {
	t.Helper()
	steps := Plan(want, observeIn(t, ns, want))
	if err := Apply(context.Background(), ns, steps); err != nil {
		t.Fatalf("apply: %v\nthe plan was:\n%s", err, render(t, steps))
	}
	if left := Plan(want, observeIn(t, ns, want)); len(left) > 0 {
		t.Fatalf("left to do:\n%safter:\n%s", render(t, left), render(t, steps))
	}
}

func TestConverge(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", mac0)
	addVeth(t, ns, "eth1", mac1)
	want := realServer()
	t.Log(render(t, Plan(want, observeIn(t, ns, want))))
	mustConverge(t, ns, want)
	want.VIPs = nil
	t.Log(render(t, Plan(want, observeIn(t, ns, want))))
	mustConverge(t, ns, want)
}

func TestInterfacesInOtherOrder(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", mac1)
	addVeth(t, ns, "eth1", mac0)
	want := realServer()
	t.Log(render(t, Plan(want, observeIn(t, ns, want))))
	mustConverge(t, ns, want)
}
