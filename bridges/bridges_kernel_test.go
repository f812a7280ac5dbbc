//go:build kernel

package bridges

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// newNamespace makes a network namespace that lives as long as the test and returns its path.
func newNamespace(t *testing.T) string {
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
func newKernel(t *testing.T) *Kernel {
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
func raw(t *testing.T, k *Kernel, kind, flags int, data ...nl.NetlinkRequestData) {
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
func addForeign(t *testing.T, k *Kernel, name, kind string, attrs ...nl.NetlinkRequestData) {
	t.Helper()
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	data := append([]nl.NetlinkRequestData{header(0), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), info}, attrs...)
	raw(t, k, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

func observe(t *testing.T, k *Kernel) State {
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

func mustConverge(t *testing.T, k *Kernel, want Spec) {
	t.Helper()
	if err := converge(context.Background(), k, want); err != nil {
		t.Fatalf("converge: %v", err)
	}
	wantNothing(t, Plan(want, observe(t, k)))
}

// wantNothing fails unless there is nothing left to do but what is blocked.
func wantNothing(t *testing.T, s Steps) {
	t.Helper()
	for _, step := range s.Plain() {
		if step.Verb != plan.Blocked {
			t.Errorf("left to do:\n%s", render(t, s))
			return
		}
	}
}

func render(t *testing.T, s Steps) string {
	t.Helper()
	var b bytes.Buffer
	if err := plan.Render(&b, s.Plain()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// portSpec is bridges and ports without VLAN links, for kernels without 8021q.
func portSpec() Spec {
	return Spec{
		Trunk:      "trunk0",
		Bridges:    []Bridge{{Name: "br120", Network: "service", MAC: bridgeMAC("b1", "br120")}, {Name: "br130", Network: "return", MAC: bridgeMAC("b1", "br130")}},
		Namespaces: []policy.GuestName{"www-1"},
		Ports: []Port{
			testPort("dir-1.0", KindTap, "dir-1", "eth0", "br130", 1),
			testPort("dir-1.1", KindTap, "dir-1", "eth1", "br120", 2),
			testPort("www-1.0", KindVeth, "www-1", "eth0", "br130", 3),
			testPort("www-1.1", KindVeth, "www-1", "eth1", "br120", 4),
		},
	}
}

func testPort(name string, kind Kind, guest policy.GuestName, inside, bridge string, id byte) Port {
	mac := policy.MAC{2, 0, 0, 0, 0, id}
	return Port{Name: name, Kind: kind, Guest: guest, Interface: inside, Bridge: bridge, MAC: hostMAC(mac), GuestMAC: mac}
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
