//go:build kernel

package inside

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
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

var (
	mac0 = policy.MAC{2, 0, 0, 0, 0, 1}
	mac1 = policy.MAC{2, 0, 0, 0, 0, 2}
)

// addVeth makes a veth in the namespace, with its peer in the same one, as a stranger would name it.
func addVeth(t *testing.T, ns, name string, mac policy.MAC) {
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

func do(t *testing.T, ns string, f func(h *netlink.Handle) error) {
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

// realServer is what a real server wants inside.
func realServer() policy.Inside {
	return policy.Inside{
		Hostname: "www-1",
		Interfaces: []policy.Interface{
			{Name: "eth0", MAC: mac0, Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.11/25"), netip.MustParsePrefix("2001:db8:130::11/64")}},
			{Name: "eth1", MAC: mac1, Addresses: []netip.Prefix{netip.MustParsePrefix("10.12.1.11/22"), netip.MustParsePrefix("2001:db8:120::11/64")}},
		},
		VIPs: []policy.VIP{{Address: netip.MustParseAddr("203.0.113.10")}, {Address: netip.MustParseAddr("2001:db8:5::10")}},
		Routes: []policy.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("198.51.100.1"), Interface: "eth0"},
			{Destination: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8:130::1"), Interface: "eth0"},
		},
		Sysctls: []policy.Sysctl{
			{Key: "net/ipv4/conf/all/arp_ignore", Value: "1"},
			{Key: "net/ipv4/conf/all/arp_announce", Value: "2"},
			{Key: "net/ipv4/conf/all/rp_filter", Value: "0"},
			{Key: "net/ipv4/conf/eth1/rp_filter", Value: "0"},
			{Key: "net/ipv6/conf/all/accept_ra", Value: "0"},
			{Key: "net/ipv6/conf/eth0/accept_ra", Value: "0"},
		},
	}
}

func observeIn(t *testing.T, ns string, want policy.Inside) State {
	t.Helper()
	s, err := Observe(context.Background(), ns, want)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func render(t *testing.T, steps []Step) string {
	t.Helper()
	var plain []plan.Step
	for _, s := range steps {
		plain = append(plain, s.Step)
	}
	var b bytes.Buffer
	if err := plan.Render(&b, plain); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// mustConverge applies one plan and fails unless that was all.
func mustConverge(t *testing.T, ns string, want policy.Inside) {
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
