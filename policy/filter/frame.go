package filter

import (
	"encoding/binary"
	"net/netip"

	"github.com/bladenet/bladenet/policy"
)

// Frame writes the packet as it stands on the wire, with right checksums. The mark comes back out of MarkOf, from IPv4's
// identification, IPv6's flow label, ARP's target MAC or an unknown frame's payload; its lower 16 bits survive everywhere.
func (p Packet) Frame(mark uint32) []byte {
	out := append(append([]byte{}, p.Destination[:]...), p.Source[:]...)
	if p.Tagged {
		out = append(out, 0x81, 0x00, 0x00, 0x05)
	}
	out = binary.BigEndian.AppendUint16(out, p.EtherType)
	switch {
	case p.ARP != nil:
		return p.ARP.append(out, mark)
	case p.IP != nil && p.IP.Source.Is4():
		return p.IP.appendIPv4(out, mark)
	case p.IP != nil:
		return p.IP.appendIPv6(out, mark)
	}
	return append(binary.BigEndian.AppendUint32(out, mark), make([]byte, 42)...)
}

// MarkOf reads the lower 16 bits of the mark that Frame wrote into an untagged or tagged frame.
func MarkOf(frame []byte) (uint16, bool) {
	at := 12
	if len(frame) > 18 && binary.BigEndian.Uint16(frame[at:]) == typeVLAN {
		at += 4
	}
	if len(frame) < at+2+28 {
		return 0, false
	}
	body := frame[at+2:]
	switch binary.BigEndian.Uint16(frame[at:]) {
	case typeARP:
		return binary.BigEndian.Uint16(body[22:]), true
	case ipv4.etherType:
		return binary.BigEndian.Uint16(body[4:]), true
	}
	return binary.BigEndian.Uint16(body[2:]), true
}

func (a ARP) append(out []byte, mark uint32) []byte {
	out = append(out, arpOverEthernet...)
	out = binary.BigEndian.AppendUint16(out, a.Operation)
	out = append(append(out, a.SenderMAC[:]...), a.Sender.AsSlice()...)
	out = append(out, 0, 0)
	out = binary.BigEndian.AppendUint32(out, mark)
	return append(append(out, a.Target.AsSlice()...), make([]byte, 18)...)
}

// Bits of the fragment fields: an offset of 100 units of eight bytes for a later piece, more to come for the first.
const (
	laterOffset = 100
	moreToCome  = 1
)

func (ip IP) appendIPv4(out []byte, mark uint32) []byte {
	payload := ip.transport()
	header := make([]byte, 20)
	header[0] = noOptions
	if ip.Options {
		header = append(header, 1, 1, 1, 0) // three no-operations and the end of the list
		header[0]++
	}
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(payload)))
	binary.BigEndian.PutUint16(header[4:], uint16(mark))
	switch ip.Piece {
	case FirstFragment:
		binary.BigEndian.PutUint16(header[6:], moreToCome<<13)
	case LaterFragment:
		binary.BigEndian.PutUint16(header[6:], laterOffset)
	}
	header[8], header[9] = ip.HopLimit, ip.Protocol
	copy(header[12:], ip.Source.AsSlice())
	copy(header[16:], ip.Destination.AsSlice())
	binary.BigEndian.PutUint16(header[10:], ^ones(0, header))
	return append(append(out, header...), payload...)
}

func (ip IP) appendIPv6(out []byte, mark uint32) []byte {
	payload, next := ip.transport(), ip.Protocol
	if ip.Piece != Whole {
		fragment := []byte{next, 0, 0, moreToCome, 0, 0, 0, 0}
		if ip.Piece == LaterFragment {
			binary.BigEndian.PutUint16(fragment[2:], laterOffset<<3)
		}
		binary.BigEndian.PutUint32(fragment[4:], mark)
		payload, next = append(fragment, payload...), protoFrag
	}
	if ip.Options {
		payload, next = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...), ip.Extension // hop-by-hop and destination: one padding option
	}
	header := make([]byte, 40)
	binary.BigEndian.PutUint32(header, 6<<28|mark&0xffff)
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	header[6], header[7] = next, ip.HopLimit
	copy(header[8:], ip.Source.AsSlice())
	copy(header[24:], ip.Destination.AsSlice())
	return append(append(out, header...), payload...)
}

// transport writes what stands behind the IP headers. A later piece holds only bytes of a payload.
func (ip IP) transport() []byte {
	if ip.Piece == LaterFragment {
		return make([]byte, 24)
	}
	var b []byte
	checksum := 0
	switch ip.Protocol {
	case protoTCP:
		b = make([]byte, 24)
		binary.BigEndian.PutUint32(b[4:], 1)
		b[12], b[13], checksum = 5<<4, byte(ip.Flags), 16
		b[15] = 64
	case protoUDP:
		b = make([]byte, 24)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		checksum = 6
	case protoICMP, protoICMPv6:
		return ip.icmp()
	case protoVRRP:
		return append([]byte{ip.Type, ip.Code}, make([]byte, 22)...)
	default:
		return make([]byte, 24)
	}
	binary.BigEndian.PutUint16(b, ip.SourcePort)
	binary.BigEndian.PutUint16(b[2:], ip.DestinationPort)
	binary.BigEndian.PutUint16(b[checksum:], ip.checksum(b))
	return b
}

func (ip IP) icmp() []byte {
	b := []byte{ip.Type, ip.Code, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[4:], ip.SourcePort) // an echo's identifier
	switch {
	case ip.Quoted != nil:
		b = append(b, ip.Quoted.bytes()...)
	case ip.Neighbour != nil:
		b = append(b, ip.Neighbour.Target.AsSlice()...)
		for _, o := range ip.Neighbour.Options {
			b = append(append(b, o.Type, 1), o.Value[:]...)
		}
	default:
		b = append(b, make([]byte, 16)...)
	}
	binary.BigEndian.PutUint16(b[2:], ip.checksum(b))
	return b
}

func (q Quoted) bytes() []byte {
	ip := IP{
		Source: q.Source, Destination: q.Destination, Options: q.Options, HopLimit: 60, Protocol: q.Protocol,
		SourcePort: q.SourcePort, DestinationPort: q.DestinationPort,
	}
	if q.Fragment {
		ip.Piece = FirstFragment
	}
	if q.Source.Is4() {
		return ip.appendIPv4(nil, 0)
	}
	return ip.appendIPv6(nil, 0)
}

// checksum is the transport's, over its pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1). ICMP in IPv4 has none.
func (ip IP) checksum(b []byte) uint16 {
	sum := uint16(0)
	if ip.Protocol != protoICMP {
		pseudo := append(ip.Source.AsSlice(), ip.Destination.AsSlice()...)
		sum = ones(0, append(pseudo, 0, 0, byte(len(b)>>8), byte(len(b)), 0, ip.Protocol))
	}
	return ^ones(sum, b)
}

// ones adds 16-bit words in ones' complement.
func ones(start uint16, b []byte) uint16 {
	sum := uint32(start)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// SolicitedNode is the multicast group of an address's solicitations (RFC 4291, section 2.7.1), and its MAC.
func SolicitedNode(a netip.Addr) (netip.Addr, policy.MAC) {
	b := a.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	return group, policy.MAC{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}
