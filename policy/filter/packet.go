package filter

import (
	"net/netip"

	"github.com/bladenet/bladenet/policy"
)

// Packet is a frame on its way over one bridge of a blade, as far as the filter looks into it.
type Packet struct {
	In, Out             string // interfaces by which it enters and would leave the bridge
	Source, Destination policy.MAC
	Tagged              bool      // carries a VLAN tag inside the bridge
	EtherType           uint16    // behind any tag
	ARP                 *ARP      // when EtherType is ARP's
	IP                  *IP       // when EtherType is IPv4's or IPv6's
	State               ConnTrack // what conntrack says of it, if it is tracked
}

// ARP is an ARP packet for IPv4 over Ethernet.
type ARP struct {
	Operation            uint16 // 1 request, 2 reply
	SenderMAC, TargetMAC policy.MAC
	Sender, Target       netip.Addr
}

// IP is an IPv4 or IPv6 packet.
type IP struct {
	Source, Destination netip.Addr
	Options             bool  // IPv4 options, or an IPv6 extension header other than a fragment header
	Extension           uint8 // IPv6: which extension header, if Options; hop-by-hop is 0
	HopLimit            uint8 // TTL in IPv4
	Piece               Piece
	Protocol            uint8
	SourcePort          uint16
	DestinationPort     uint16
	Flags               policy.TCPFlags
	Type, Code          uint8      // ICMP; of VRRP version with type, and virtual router
	Neighbour           *Neighbour // of a neighbour solicitation or advertisement
	Quoted              *Quoted    // of an ICMP error
}

// Piece says which part of a fragmented packet this is.
type Piece uint8

// The pieces.
const (
	Whole Piece = iota
	FirstFragment
	LaterFragment
)

// Neighbour is what a neighbour solicitation or advertisement says (RFC 4861, sections 4.3 and 4.4).
type Neighbour struct {
	Target  netip.Addr
	Options []NeighbourOption
}

// NeighbourOption is an option of eight bytes: a link-layer address, or a nonce.
type NeighbourOption struct {
	Type  uint8
	Value policy.MAC
}

// Quoted is the start of the packet that an ICMP error is about.
type Quoted struct {
	Source, Destination         netip.Addr
	Options                     bool
	Fragment                    bool // the first of several
	Protocol                    uint8
	SourcePort, DestinationPort uint16
}

// ConnTrack is a connection's state.
type ConnTrack uint8

// The states. New is also what an untracked packet has: nothing is known of it.
const (
	New ConnTrack = iota
	Established
	Related
	Invalid
)

// Verdict is what happens to a packet, and what decides it.
type Verdict struct {
	Accept bool
	Guard  bool       // dropped for who sends it, before anybody asks whom it is for
	Reason Reason     // why it is dropped; empty when it is accepted
	Rule   string     // what decides: "rule admin", "service www", "check", "bgp", or a sentence
	Pos    policy.Pos // the policy's line, where one decides
}
