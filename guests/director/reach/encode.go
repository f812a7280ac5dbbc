package reach

import (
	"encoding/binary"
	"net/netip"

	"github.com/bladenet/bladenet/policy"
)

// Lengths of headers, and what stands in them (RFC 791, RFC 8200, RFC 9293).
const (
	ethernet   = 14
	header4    = 20
	header6    = 40
	tcp        = 20
	protoTCP   = 6
	typeIPv4   = 0x0800
	typeIPv6   = 0x86dd
	window     = 64240
	hopLimit   = 64
	flagFIN    = 0x01
	flagSYN    = 0x02
	flagRST    = 0x04
	flagACK    = 0x10
	flagsKnown = flagFIN | flagSYN | flagRST | flagACK
)

// frame writes a probe's segment as it stands on the wire. What resets has the sequence number behind the SYN's, which is all that the other
// end has heard.
func (p Probe) frame(source, destination policy.MAC) []byte {
	out := append(append([]byte{}, destination[:]...), source[:]...)
	from, to := p.From.Addr(), p.To.Addr()
	if from.Is4() {
		out = binary.BigEndian.AppendUint16(out, typeIPv4)
		ip := make([]byte, header4)
		ip[0] = 0x45
		binary.BigEndian.PutUint16(ip[2:], header4+tcp)
		ip[6] = 0x40 // in one piece
		ip[8], ip[9] = hopLimit, protoTCP
		copy(ip[12:], from.AsSlice())
		copy(ip[16:], to.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))
		out = append(out, ip...)
	} else {
		out = binary.BigEndian.AppendUint16(out, typeIPv6)
		ip := make([]byte, header6)
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], tcp)
		ip[6], ip[7] = protoTCP, hopLimit
		copy(ip[8:], from.AsSlice())
		copy(ip[24:], to.AsSlice())
		out = append(out, ip...)
	}
	return append(out, p.segment()...)
}

func (p Probe) segment() []byte {
	b := make([]byte, tcp)
	binary.BigEndian.PutUint16(b, p.From.Port())
	binary.BigEndian.PutUint16(b[2:], p.To.Port())
	sequence, flags := p.Sequence, byte(flagSYN)
	if p.Reset {
		sequence, flags = sequence+1, flagRST
	} else {
		binary.BigEndian.PutUint16(b[14:], window)
	}
	binary.BigEndian.PutUint32(b[4:], sequence)
	b[12], b[13] = tcp/4<<4, flags
	pseudo := append(p.From.Addr().AsSlice(), p.To.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(b[16:], ^sum(sum(0, append(pseudo, 0, protoTCP, 0, tcp)), b))
	return b
}

// sum adds an even number of bytes as 16-bit words in ones' complement (RFC 1071).
func sum(start uint16, b []byte) uint16 {
	s := uint32(start)
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// Decode reads an IP packet that may answer a probe; false: it is nothing of the kind. It may be cut short behind the TCP header. Checksums
// are not looked at: between virtual machines nobody writes them.
func Decode(packet []byte) (Answer, bool) {
	var a Answer
	var from, to netip.Addr
	var segment []byte
	switch {
	case len(packet) >= header4+tcp && packet[0] == 0x45:
		piece := binary.BigEndian.Uint16(packet[6:]) & 0x3fff // more to come, or an offset
		if packet[9] != protoTCP || piece != 0 || binary.BigEndian.Uint16(packet[2:]) < header4+tcp {
			return a, false
		}
		from, to = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		segment = packet[header4:]
	case len(packet) >= header6+tcp && packet[0]>>4 == 6:
		if packet[6] != protoTCP || binary.BigEndian.Uint16(packet[4:]) < tcp {
			return a, false
		}
		from, to = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		segment = packet[header6:]
	default:
		return a, false
	}
	flags := segment[13] & flagsKnown
	if flags != flagSYN|flagACK && flags != flagRST|flagACK {
		return a, false
	}
	return Answer{
		From:     netip.AddrPortFrom(from, binary.BigEndian.Uint16(segment)),
		To:       netip.AddrPortFrom(to, binary.BigEndian.Uint16(segment[2:])),
		Sequence: binary.BigEndian.Uint32(segment[8:]) - 1,
		Refused:  flags&flagRST != 0,
	}, true
}
