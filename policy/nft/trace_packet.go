package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// Numbers of protocols in frames (IANA).
const (
	etherIPv4, etherARP, etherVLAN, etherQinQ, etherIPv6 = 0x0800, 0x0806, 0x8100, 0x88a8, 0x86dd

	protocolICMP, protocolTCP, protocolUDP, protocolFragment, protocolICMPv6, protocolVRRP = 1, 6, 17, 44, 58, 112
)

// packet reads what an event shows of its packet: as much of each header as the kernel hands over. A header that is cut off or not known
// leaves its fields empty.
func (e traceEvent) packet() filter.Packet {
	var p filter.Packet
	if len(e.link) < 14 {
		return p
	}
	copy(p.Destination[:], e.link)
	copy(p.Source[:], e.link[6:])
	p.EtherType = binary.BigEndian.Uint16(e.link[12:])
	if p.EtherType == etherVLAN || p.EtherType == etherQinQ {
		p.Tagged = true
		if len(e.link) >= 18 {
			p.EtherType = binary.BigEndian.Uint16(e.link[16:])
		}
	}
	switch {
	case p.EtherType == etherARP && len(e.network) >= 28:
		p.ARP = arpOf(e.network)
	case p.EtherType == etherIPv4 && len(e.network) >= 20 && e.network[0]>>4 == 4:
		p.IP = ipv4Of(e.network)
	case p.EtherType == etherIPv6 && len(e.network) >= 40 && e.network[0]>>4 == 6:
		p.IP = ipv6Of(e.network)
	}
	if p.IP != nil && p.IP.Piece != filter.LaterFragment {
		readTransport(p.IP, e.transport)
	}
	return p
}

func arpOf(b []byte) *filter.ARP {
	a := filter.ARP{Operation: binary.BigEndian.Uint16(b[6:])}
	copy(a.SenderMAC[:], b[8:])
	copy(a.TargetMAC[:], b[18:])
	a.Sender, a.Target = netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	return &a
}

func ipv4Of(b []byte) *filter.IP {
	ip := filter.IP{
		Source: netip.AddrFrom4([4]byte(b[12:16])), Destination: netip.AddrFrom4([4]byte(b[16:20])),
		Options: b[0]&0xf != 5, HopLimit: b[8], Protocol: b[9],
	}
	const offset, more = 0x1fff, 0x2000
	switch fragment := binary.BigEndian.Uint16(b[6:]); {
	case fragment&offset != 0:
		ip.Piece = filter.LaterFragment
	case fragment&more != 0:
		ip.Piece = filter.FirstFragment
	}
	return &ip
}

// ipv6Of reads the fixed header. Of a fragment the kernel does not show which piece it is: it counts as a later one.
func ipv6Of(b []byte) *filter.IP {
	ip := filter.IP{
		Source: netip.AddrFrom16([16]byte(b[8:24])), Destination: netip.AddrFrom16([16]byte(b[24:40])), HopLimit: b[7], Protocol: b[6],
	}
	switch ip.Protocol {
	case protocolFragment:
		ip.Piece = filter.LaterFragment
	case 0, 43, 51, 60, 135: // hop-by-hop, routing, authentication, destination, mobility
		ip.Options, ip.Extension = true, ip.Protocol
	}
	return &ip
}

func readTransport(ip *filter.IP, b []byte) {
	switch {
	case (ip.Protocol == protocolICMP || ip.Protocol == protocolICMPv6 || ip.Protocol == protocolVRRP) && len(b) >= 2:
		ip.Type, ip.Code = b[0], b[1]
	case ip.Protocol == protocolTCP && len(b) >= 14:
		ip.Flags = policy.TCPFlags(b[13])
		fallthrough
	case ip.Protocol == protocolUDP && len(b) >= 4, ip.Protocol == protocolTCP && len(b) >= 4:
		ip.SourcePort, ip.DestinationPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
}
