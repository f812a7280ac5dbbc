package filter

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bladenet/bladenet/policy"
)

// IP protocol numbers (IANA).
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoFrag   = 44
	protoICMPv6 = 58
	protoOSPF   = 89
	protoVRRP   = 112
)

// span is a field's first and last value.
type span struct{ first, last []byte }

func exactly(b []byte) span { return span{b, b} }

// key joins fields as the kernel concatenates them: each padded with zeroes to four bytes, but for a field on its own.
func key(parts ...[]byte) string {
	if len(parts) == 1 {
		return string(parts[0])
	}
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return string(out)
}

// ifname pads an interface's name with zeroes to IFNAMSIZ. Without the padding the kernel compares a prefix, and tap10 passes
// for tap1.
func ifname(name string) []byte {
	out := make([]byte, 16)
	copy(out[:15], name)
	return out
}

func mac(m policy.MAC) []byte       { return m[:] }
func addr(a netip.Addr) []byte      { return a.AsSlice() }
func port(p uint16) []byte          { return binary.BigEndian.AppendUint16(nil, p) }
func number(n byte) []byte          { return []byte{n} }
func etherType(t uint16) []byte     { return binary.BigEndian.AppendUint16(nil, t) }
func states(bits uint32) []byte     { return binary.NativeEndian.AppendUint32(nil, bits) }
func address(text string) []byte    { return addr(netip.MustParseAddr(text)) }
func ports(first, last uint16) span { return span{port(first), port(last)} }

// prefixSpan is the first and last address of a prefix.
func prefixSpan(p netip.Prefix) span {
	p = p.Masked()
	first := p.Addr().AsSlice()
	last := slices.Clone(first)
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return span{first, last}
}

// mergePrefixes joins prefixes of one family into spans that neither overlap nor touch: the kernel refuses overlapping elements.
func mergePrefixes(prefixes []netip.Prefix, f family) []span {
	var spans []span
	for _, p := range prefixes {
		if f.has(p.Addr()) {
			spans = append(spans, prefixSpan(p))
		}
	}
	return mergeSpans(spans)
}

func mergeSpans(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return bytes.Compare(a.first, b.first) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && (bytes.Compare(s.first, out[n-1].last) <= 0 || bytes.Equal(s.first, next(out[n-1].last))) {
			if bytes.Compare(s.last, out[n-1].last) > 0 {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// next is the big-endian number after b, or zero when there is none.
func next(b []byte) []byte {
	out := slices.Clone(b)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i]++; out[i] != 0 {
			break
		}
	}
	return out
}

// mergePorts joins the ranges of one protocol as mergePrefixes joins prefixes.
func mergePorts(ranges []policy.PortRange, p policy.Protocol) []span {
	var spans []span
	for _, r := range ranges {
		if r.Protocol == p {
			spans = append(spans, ports(r.First, r.Last))
		}
	}
	return mergeSpans(spans)
}

func protocolNumber(p policy.Protocol, f family) byte {
	switch p {
	case policy.TCP:
		return protoTCP
	case policy.UDP:
		return protoUDP
	default:
		return f.icmp
	}
}
