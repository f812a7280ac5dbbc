package traffic

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Flow is what a program's packets have in common. Each packet has a random client (address and port) and a random service out
// of VIPs times Ports, evenly.
type Flow struct {
	Source, Destination net.HardwareAddr
	Client              netip.Addr // the last 16 bits are random
	VIP                 netip.Addr // the first of VIPs, whose last 16 bits count up
	VIPs                int
	Port, Ports         int  // the first port, and how many
	Answer              bool // from the VIP to the client, not to it
	Clients             int  // so many addresses, with one port; 0: any
}

const (
	ethernetLength = 14
	ipv4Length     = 20
	ipv6Length     = 40
	tcpLength      = 20
	checksumAt     = ethernetLength + 10
	ack            = 0x10
)

// layout says where a frame's changing parts are, as offsets of two bytes each.
type layout struct {
	vip, vipPort, client, clientPort int
	length                           int
}

func (f Flow) v6() bool { return f.VIP.Is6() }

func (f Flow) layout() layout {
	source, transport := ethernetLength+12, ethernetLength+ipv4Length
	width := 4
	if f.v6() {
		source, transport, width = ethernetLength+8, ethernetLength+ipv6Length, 16
	}
	low := width - 2
	l := layout{client: source + low, vip: source + width + low, clientPort: transport, vipPort: transport + 2, length: transport + tcpLength}
	if f.Answer {
		l.client, l.vip = l.vip, l.client
		l.clientPort, l.vipPort = l.vipPort, l.clientPort
	}
	return l
}

// frame writes the packet with nothing in its changing parts: a TCP acknowledgement without data.
func (f Flow) frame() []byte {
	l := f.layout()
	b := append(append(make([]byte, 0, l.length), f.Destination...), f.Source...)
	from, to := f.Client, f.VIP
	if f.Answer {
		from, to = to, from
	}
	if f.v6() {
		b = binary.BigEndian.AppendUint16(b, 0x86dd)
		b = append(b, 0x60, 0, 0, 0, 0, tcpLength, 6, 64)
	} else {
		b = binary.BigEndian.AppendUint16(b, 0x0800)
		b = append(b, 0x45, 0, 0, ipv4Length+tcpLength, 0, 0, 0x40, 0, 64, 6, 0, 0)
	}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, tcpLength<<2, ack, 0xff, 0xff, 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(b[l.vip:], 0)
	binary.NativeEndian.PutUint16(b[l.client:], 0)
	return b
}

// sumOf adds up an even number of bytes in the machine's own byte order, by twos: a checksum does not mind which (RFC 1071).
func sumOf(b []byte) uint32 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.NativeEndian.Uint16(b))
	}
	return sum
}

// transportSum is the sum over TCP's fixed parts and its pseudo header (RFC 9293, section 3.1).
func (f Flow) transportSum() uint32 {
	frame, l := f.frame(), f.layout()
	addresses := ethernetLength + 12
	if f.v6() {
		addresses = ethernetLength + 8
	}
	return sumOf(frame[addresses:l.length]) + sumOf([]byte{0, 6, 0, tcpLength})
}
