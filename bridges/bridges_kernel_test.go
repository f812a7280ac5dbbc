//go:build kernel

package bridges

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace that lives as long as the test and returns its path.
func newNamespace(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	err := onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// newKernel returns a Kernel in a namespace of its own with its own folder of guests' namespaces.
func newKernel(t testing.TB) *Kernel {
	t.Helper()
	k := NewKernel(Options{Namespace: newNamespace(t), Namespaces: filepath.Join(t.TempDir(), "netns")})
	t.Cleanup(func() {
		entries, _ := os.ReadDir(k.folder)
		for _, e := range entries {
			_ = unix.Unmount(k.path(e.Name()), unix.MNT_DETACH)
		}
		_ = unix.Unmount(k.folder, unix.MNT_DETACH)
	})
	return k
}

// raw sends one rtnetlink request in the Kernel's namespace: how tests do what a stranger would.
func raw(t testing.TB, k *Kernel, kind, flags int, data ...nl.NetlinkRequestData) {
	t.Helper()
	h, err := openSocket(k.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Socket.Close()
	if _, err := request(h, kind, flags|unix.NLM_F_ACK, data...); err != nil {
		t.Fatal(err)
	}
}

// addForeign makes a link of a kind as somebody else would.
func addForeign(t testing.TB, k *Kernel, name, kind string, attrs ...nl.NetlinkRequestData) {
	t.Helper()
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	data := append([]nl.NetlinkRequestData{header(0), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), info}, attrs...)
	raw(t, k, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

func observe(t testing.TB, k *Kernel) State {
	t.Helper()
	s, err := k.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// converge applies one plan in its three phases.
func converge(ctx context.Context, k *Kernel, want Spec) error {
	have, err := k.Observe(ctx)
	if err != nil {
		return err
	}
	steps := Plan(want, have)
	for _, phase := range [][]Step{steps.Remove, steps.Create, steps.Attach} {
		if err := k.Apply(ctx, phase); err != nil {
			return err
		}
	}
	return nil
}

func mustConverge(t testing.TB, k *Kernel, want Spec) {
	t.Helper()
	if err := converge(context.Background(), k, want); err != nil {
		t.Fatalf("converge: %v", err)
	}
	wantNothing(t, Plan(want, observe(t, k)))
}

func TestConverge(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth", attribute32(unix.IFLA_MTU, 9000))
	want := portSpec()
	t.Log(render(t, Plan(want, observe(t, k))))
	mustConverge(t, k, want)
	want.Ports = want.Ports[:2]
	want.Namespaces = nil
	mustConverge(t, k, want)
	mustConverge(t, k, Spec{Trunk: "trunk0"})
	if left := observe(t, k); len(left.Namespaces) != 0 {
		t.Errorf("namespaces left: %v", left.Namespaces)
	}
}
