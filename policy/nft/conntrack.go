package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VIPConntrack counts the connection-tracking entries that have one of the VIPs at either end. It must be 0: VIP traffic is
// never tracked.
func (k *Kernel) VIPConntrack(ctx context.Context, vips []netip.Addr) (int, error) {
	wanted := make(map[netip.Addr]bool, len(vips))
	for _, v := range vips {
		wanted[v] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	total := 0
	for _, f := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := k.conntrack(ctx, f)
		if err != nil {
			return 0, fmt.Errorf("list conntrack entries: %w", err)
		}
		for _, flow := range flows {
			ends := [][]byte{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP, flow.Reverse.DstIP}
			if slices.ContainsFunc(ends, func(ip []byte) bool {
				a, ok := netip.AddrFromSlice(ip)
				return ok && wanted[a.Unmap()]
			}) {
				total++
			}
		}
	}
	return total, nil
}

// conntrack dumps one family's entries again while dumps are interrupted.
func (k *Kernel) conntrack(ctx context.Context, f netlink.InetFamily) ([]*netlink.ConntrackFlow, error) {
	for range observeAttempts {
		flows, err := k.tracked.ConntrackTableList(netlink.ConntrackTable, f)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return flows, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, netlink.ErrDumpInterrupted
}
