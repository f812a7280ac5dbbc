//go:build kernel

package inside

import (
	"context"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Whatever somebody changes in a namespace is told, and nothing keeps the namespace when the watch has ended.
func TestWatch(t *testing.T) {
	ns := newNamespace(t)
	addVeth(t, ns, "eth0", [6]byte{2, 0, 0, 0, 0, 1})
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{}, 1000)
	ended := make(chan error)
	go func() { ended <- Watch(ctx, ns, func() { told <- struct{}{} }) }()
	next := func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: not told", what)
		}
		for quiet := false; !quiet; {
			select {
			case <-told:
			case <-time.After(200 * time.Millisecond):
				quiet = true
			}
		}
	}
	next("it listens")
	link := func(h *netlink.Handle) netlink.Link {
		l, err := h.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	four, six := parse(t, "192.0.2.1/24"), parse(t, "2001:db8::1/64")
	for _, act := range []struct {
		name string
		do   func(h *netlink.Handle) error
	}{
		{"up", func(h *netlink.Handle) error { return h.LinkSetUp(link(h)) }},
		{"IPv4 address", func(h *netlink.Handle) error { return h.AddrAdd(link(h), four) }},
		{"IPv6 address", func(h *netlink.Handle) error { return h.AddrAdd(link(h), six) }},
		{"route", func(h *netlink.Handle) error {
			return h.RouteAdd(&netlink.Route{LinkIndex: link(h).Attrs().Index, Dst: parse(t, "203.0.113.0/24").IPNet})
		}},
		{"no route", func(h *netlink.Handle) error {
			return h.RouteDel(&netlink.Route{LinkIndex: link(h).Attrs().Index, Dst: parse(t, "203.0.113.0/24").IPNet})
		}},
		{"no address", func(h *netlink.Handle) error { return h.AddrDel(link(h), four) }},
		{"no link", func(h *netlink.Handle) error { return h.LinkDel(link(h)) }},
	} {
		do(t, ns, act.do)
		next(act.name)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it ended without saying why")
	}
	if err := Watch(t.Context(), ns+"-gone", func() {}); err == nil {
		t.Error("a namespace that is not there is watched")
	}
}

func parse(t *testing.T, text string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
