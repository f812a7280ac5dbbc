//go:build kernel

package nft

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
)

// TestWatchWakes wakes for a stranger's change to our tables, not for our own, and not for a stranger's own tables.
func TestWatchWakes(t *testing.T) {
	namespace(t)
	k := open(t)
	want := filter.Compile(nantes(t, "lame-l1"))
	bring(t, k, want)
	file, err := listen(unix.NFNLGRP_NFTABLES) // here: Watch runs on a thread that is not in this namespace
	if err != nil {
		t.Fatal(err)
	}
	own, err := k.send.port()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	woken, ended := make(chan struct{}, 100), make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	go func() { ended <- watch(ctx, file, own, func() { woken <- struct{}{} }) }()

	fewer := nantes(t, "lame-l1")
	fewer.Guests = fewer.Guests[:1]
	bring(t, k, filter.Compile(fewer))
	tool(t, "table bridge stranger { chain c { }\n}\n", "-f", "-")
	select {
	case <-woken:
		t.Error("woken by our own change, or by a stranger's own table")
	case <-time.After(500 * time.Millisecond):
	}
	begin := time.Now()
	tool(t, "", "flush", "ruleset")
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Fatal("a flush woke nobody")
	}
	bring(t, k, want)
	t.Logf("flushed and repaired in %v", time.Since(begin))
	if again := planned(t, k, want); len(again) > 0 {
		t.Errorf("after the repair, still planned: %v", again)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the end of the context did not end the watch")
	}
}

func TestFeaturesAreThere(t *testing.T) {
	namespace(t)
	k := open(t)
	if err := k.Features(context.Background()); err != nil {
		t.Error(err)
	}
	if left := tool(t, "", "list", "ruleset"); left != "" {
		t.Errorf("the probes left behind:\n%s", left)
	}
}

// TestVIPConntrackCounts tracks a packet from a VIP and wants it counted: a number that is always 0 would prove nothing.
func TestVIPConntrackCounts(t *testing.T) {
	namespace(t)
	k := open(t)
	tool(t, "table inet tracker { chain c { type filter hook output priority 0; ct state new accept; }\n}\n", "-f", "-")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	vips := []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:5::10")}
	for i, v := range vips {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: v.AsSlice(), Mask: net.CIDRMask(v.BitLen(), v.BitLen())}, Flags: 2 /* IFA_F_NODAD */}
		if err := netlink.AddrAdd(lo, a); err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: v.AsSlice(), Port: 5000})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.WriteToUDP([]byte("x"), &net.UDPAddr{IP: v.AsSlice(), Port: 5001}); err != nil {
			t.Fatal(err)
		}
		n, err := k.VIPConntrack(context.Background(), vips)
		if err != nil || n != i+1 {
			t.Errorf("%d entries, want %d, %v", n, i+1, err)
		}
	}
	if n, err := k.VIPConntrack(context.Background(), []netip.Addr{netip.MustParseAddr("203.0.113.11")}); err != nil || n != 0 {
		t.Errorf("%d entries of a VIP that has none, %v", n, err)
	}
}

// TestLostAnswerIsReadBack drops the kernel's answer to a batch that was done, and to one that was not.
func TestLostAnswerIsReadBack(t *testing.T) {
	namespace(t)
	k := open(t)
	ctx := context.Background()
	want := filter.Compile(nantes(t, "lame-l1"))
	have, err := k.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Plan(want, have)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.settle(ctx, steps, errDoubtful); err == nil {
		t.Error("a batch that was never sent counts as done")
	}
	if err := k.Apply(ctx, steps); err != nil {
		t.Fatal(err)
	}
	if err := k.settle(ctx, steps, errDoubtful); err != nil {
		t.Errorf("a batch that was done counts as lost: %v", err)
	}
}

// TestNamespaceByPath opens a namespace of another thread by its path, and writes there, not here.
func TestNamespaceByPath(t *testing.T) {
	if _, err := NewKernel("/nonexistent"); err == nil {
		t.Error("a namespace that is not there was entered")
	}
	namespace(t)
	path := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	there, err := NewKernel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	namespace(t)
	bring(t, there, filter.Compile(nantes(t, "lame-l1")))
	if here := tool(t, "", "list", "ruleset"); here != "" {
		t.Errorf("written into the wrong namespace:\n%s", here)
	}
	if again := planned(t, there, filter.Compile(nantes(t, "lame-l1"))); len(again) > 0 {
		t.Errorf("not written there: %v", again)
	}
}
