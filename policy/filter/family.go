package filter

import (
	"net/netip"
	"slices"
)

// family is what differs between IPv4 and IPv6 in rules that are otherwise the same.
type family struct {
	suffix    string
	etherType uint16
	src, dst  Field
	proto     Field // the IP header's own, so that extension headers never pass for a transport
	icmp      byte
	groups    []byte  // the leading bits of addresses that are nobody's own: multicast, in IPv4 all from 224.0.0.0 on
	quote     []Field // of an ICMP error: to whom it goes, and what it quotes
	echo      byte
	version   byte // NFPROTO_*
	host      bool // rules for the inet family
}

var (
	ipv4 = family{
		suffix: "4", etherType: 0x0800, src: IPv4Source, dst: IPv4Destination, proto: IPv4Protocol, icmp: protoICMP, echo: 8, version: 2,
		groups: []byte{0xe0, 0, 0, 0},
		quote:  []Field{IPv4Destination, QuotedSource4, QuotedProtocol4, QuotedPort4},
	}
	ipv6 = family{
		suffix: "6", etherType: 0x86dd, src: IPv6Source, dst: IPv6Destination, proto: IPv6Next, icmp: protoICMPv6, echo: 128, version: 10,
		groups: []byte{0: 0xff, 15: 0},
		quote:  []Field{IPv6Destination, QuotedSource6, QuotedProtocol6, QuotedPort6},
	}
)

func families() []family { return []family{ipv4, ipv6} }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

func (f family) has(a netip.Addr) bool { return a.Is4() == (f.suffix == "4") }

// set names the family's set of a kind.
func (f family) set(kind string) string { return kind + f.suffix }

// packet begins a rule for packets of the family, untagged: for a tagged frame the kernel reads the tag's type here. IPv4
// packets with options do not match; guards count them.
func (f family) packet() []Statement {
	if f.host {
		return []Statement{is(Version, number(f.version))}
	}
	if f.suffix == "4" {
		return []Statement{is(EtherType, etherType(f.etherType)), is(IPv4Header, number(noOptions))}
	}
	return []Statement{is(EtherType, etherType(f.etherType))}
}

// rule is packet with more statements.
func (f family) rule(more ...Statement) Rule { return rule(append(f.packet(), more...)...) }

func rule(statements ...Statement) Rule { return Rule{Statements: slices.Clone(statements)} }

func is(f Field, value []byte) Match    { return Match{Field: f, Value: value} }
func isNot(f Field, value []byte) Match { return Match{Field: f, Value: value, Not: true} }

func masked(f Field, mask, value []byte) Match { return Match{Field: f, Mask: mask, Value: value} }

func in(set string, fields ...Field) Lookup    { return Lookup{Set: set, Fields: fields} }
func notIn(set string, fields ...Field) Lookup { return Lookup{Set: set, Fields: fields, Not: true} }

func deny(r Reason) Decide       { return Decide{Kind: Goto, Chain: denyChain(r)} }
func jump(chain string) Decide   { return Decide{Kind: Jump, Chain: chain} }
func follow(chain string) Decide { return Decide{Kind: Goto, Chain: chain} }

// accept and done end a chain: the first for good, the second as far as this hook is concerned.
func accept() Decide { return Decide{Kind: Accept} }
func done() Decide   { return Decide{Kind: Return} }

// The bits of nft's ct_state (include/uapi/linux/netfilter/nf_conntrack_common.h: 1 << (state % 3 + 1), invalid and untracked aside).
const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
	stateNew         = 8
	stateUntracked   = 64
)
