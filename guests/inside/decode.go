package inside

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// dumpAttempts bounds the retries of a dump that other changes interrupt.
const dumpAttempts = 20

// mostEntries bounds what is kept of one list. Root in a guest may make as many links, addresses and routes as its memory holds, and the
// host's must not follow.
const mostEntries = 4096

// errTooMany says that a namespace holds more than anybody needs.
var errTooMany = fmt.Errorf("more than %d of them", mostEntries)

// whole repeats a dump until no change has interrupted it: an interrupted one may lack entries.
func whole[T any](ctx context.Context, what string, dump func(yield func(T)) error) ([]T, error) {
	for attempt := 1; ; attempt++ {
		var out []T
		total := 0
		err := dump(func(entry T) {
			if total++; total <= mostEntries {
				out = append(out, entry)
			}
		})
		if err == nil && total > mostEntries {
			err = errTooMany
		}
		if err == nil {
			return out, nil
		}
		interrupted := errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR)
		if !interrupted || attempt == dumpAttempts || ctx.Err() != nil {
			return nil, fmt.Errorf("list %s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}

// dump asks for a list in the socket's network namespace and gives what decode knows to yield.
func dump[T any](h *nl.SocketHandle, kind int, answer uint16, header nl.NetlinkRequestData, decode func(m []byte) (T, bool), yield func(T)) error {
	req := nl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h}
	req.AddData(header)
	return req.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool {
		if entry, ok := decode(m); ok {
			yield(entry)
		}
		return true
	})
}

// attributes walks over netlink attributes. What is left of a malformed list is not told of. The netlink library's own decoders are not used
// here: they read whatever root in a guest can make, and must not fall over it.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// decodeLink reads one RTM_NEWLINK message without its netlink header. False: it is no link's.
func decodeLink(m []byte) (Link, bool) {
	if len(m) < unix.SizeofIfInfomsg {
		return Link{}, false
	}
	out := Link{Index: int(binary.NativeEndian.Uint32(m[4:])), Up: binary.NativeEndian.Uint32(m[8:])&unix.IFF_UP != 0}
	for kind, v := range attributes(m[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			out.Name = text(v)
		case unix.IFLA_ADDRESS:
			if len(v) == len(out.MAC) {
				out.MAC = policy.MAC(v)
			}
		case unix.IFLA_LINKINFO:
			for kind, v := range attributes(v) {
				if kind == unix.IFLA_INFO_KIND {
					out.Kind = text(v)
				}
			}
		}
	}
	return out, out.Name != ""
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func number(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}

// decodeAddress reads one RTM_NEWADDR message without its netlink header. False: it holds no address that we know.
func decodeAddress(m []byte) (Address, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return Address{}, false
	}
	bits, flags := int(m[1]), int(m[2])
	out := Address{Link: int(binary.NativeEndian.Uint32(m[4:])), Preferred: true, Lasting: true}
	var local, address netip.Addr
	for kind, v := range attributes(m[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(v)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_BROADCAST:
			out.Broadcast, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			flags = number(v)
		case unix.IFA_CACHEINFO: // struct ifa_cacheinfo: preferred and valid lifetime in seconds come first
			if len(v) >= 8 {
				out.Preferred = number(v) != 0
				out.Lasting = binary.NativeEndian.Uint32(v[4:]) == math.MaxUint32
			}
		}
	}
	return finishAddress(out, local, address, bits, flags)
}

// finishAddress puts an address together. IFA_ADDRESS is the other end where IFA_LOCAL says something else: then the prefix is its.
func finishAddress(out Address, local, address netip.Addr, bits, flags int) (Address, bool) {
	switch {
	case local.IsValid() && address.IsValid() && local != address:
		out.Prefix = netip.PrefixFrom(local, local.BitLen())
		out.Peer = netip.PrefixFrom(address, bits)
	case local.IsValid():
		out.Prefix = netip.PrefixFrom(local, bits)
	default:
		out.Prefix = netip.PrefixFrom(address, bits)
	}
	if !out.Prefix.IsValid() {
		return Address{}, false
	}
	if local.Is4() {
		out.Secondary = flags&unix.IFA_F_SECONDARY != 0
	} else {
		out.Failed = flags&(unix.IFA_F_DADFAILED|unix.IFA_F_TENTATIVE) != 0
	}
	return out, true
}

// decodeRoute reads one RTM_NEWROUTE message without its netlink header. False: it is no unicast route of the main table.
func decodeRoute(m []byte) (Route, bool) {
	if len(m) < unix.SizeofRtMsg {
		return Route{}, false
	}
	family, bits, table, kind := m[0], int(m[1]), m[4], m[7]
	cloned := binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0
	if family != unix.AF_INET && family != unix.AF_INET6 || table != unix.RT_TABLE_MAIN || kind != unix.RTN_UNICAST || cloned {
		return Route{}, false
	}
	destination := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		destination = netip.IPv6Unspecified()
	}
	out := Route{Protocol: int(m[5])}
	for kind, v := range attributes(m[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			destination, _ = netip.AddrFromSlice(v)
		case unix.RTA_GATEWAY:
			out.Via, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			out.Link = number(v)
		case unix.RTA_PRIORITY:
			out.Metric = number(v)
		}
	}
	out.Destination = netip.PrefixFrom(destination, bits)
	return out, out.Destination.IsValid()
}
