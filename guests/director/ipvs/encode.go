package ipvs

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Commands and attributes of IPVS in generic netlink (include/uapi/linux/ip_vs.h).
const (
	familyName    = "IPVS"
	familyVersion = 1

	attrService     = 1
	attrDestination = 2

	serviceFamily    = 1
	serviceProtocol  = 2
	serviceAddress   = 3
	servicePort      = 4
	serviceMark      = 5
	serviceScheduler = 6
	serviceFlags     = 7
	serviceTimeout   = 8
	serviceNetmask   = 9

	destinationAddress  = 1
	destinationPort     = 2
	destinationMethod   = 3
	destinationWeight   = 4
	destinationUpper    = 5
	destinationLower    = 6
	destinationActive   = 7
	destinationInactive = 8
	destinationFamily   = 11
	destinationStats64  = 12

	statsConnections    = 1
	statsPackets        = 2
	statsBytes          = 4
	statsConnectionRate = 6
	statsPacketRate     = 7
	statsByteRate       = 9

	getService     = 4
	getDestination = 8
)

// commands are what each operation is called there.
var commands = [...]byte{AddService: 1, SetService: 2, DelService: 3, AddDestination: 5, SetDestination: 6, DelDestination: 7}

// messages is a growing run of netlink messages: one buffer, appended to and never copied.
type messages struct{ buf []byte }

// step appends the message that does a step, to be acknowledged.
func (m *messages) step(s Step, family uint16, seq uint32) {
	start := m.open(family, commands[s.Op], unix.NLM_F_ACK, seq)
	m.service(s.Service)
	switch s.Op {
	case AddDestination, SetDestination, DelDestination:
		m.destination(s.Destination)
	}
	m.close(start)
}

// open begins a message; close ends it.
func (m *messages) open(family uint16, command byte, flags uint16, seq uint32) int {
	start := len(m.buf)
	m.buf = binary.NativeEndian.AppendUint32(m.buf, 0)
	m.buf = binary.NativeEndian.AppendUint16(m.buf, family)
	m.buf = binary.NativeEndian.AppendUint16(m.buf, unix.NLM_F_REQUEST|flags)
	m.buf = binary.NativeEndian.AppendUint32(m.buf, seq)
	m.buf = binary.NativeEndian.AppendUint32(m.buf, 0)
	m.buf = append(m.buf, command, familyVersion, 0, 0)
	return start
}

func (m *messages) close(start int) {
	binary.NativeEndian.PutUint32(m.buf[start:], uint32(len(m.buf)-start))
}

// service appends a service whole: the kernel reads of it what the command needs.
func (m *messages) service(s Service) {
	nest := m.nest(attrService)
	m.short(serviceFamily, addressFamily(s.IPv6))
	if s.Mark != 0 {
		m.number(serviceMark, s.Mark)
	} else {
		m.short(serviceProtocol, s.Protocol)
		m.address(serviceAddress, s.Address)
		m.port(servicePort, s.Port)
	}
	m.bytes(serviceScheduler, append([]byte(s.Scheduler), 0))
	flags := binary.NativeEndian.AppendUint32(nil, uint32(s.Flags))
	m.bytes(serviceFlags, binary.NativeEndian.AppendUint32(flags, 0xffffffff)) // and the mask of those that count
	m.number(serviceTimeout, uint32(s.Persistence/time.Second))
	netmask := s.Netmask
	if netmask == 0 {
		netmask = wholeAddress(s.IPv6)
	}
	m.number(serviceNetmask, netmask)
	m.shut(nest)
}

func (m *messages) destination(d Destination) {
	nest := m.nest(attrDestination)
	m.short(destinationFamily, addressFamily(d.Address.Is6()))
	m.address(destinationAddress, d.Address)
	m.port(destinationPort, d.Port)
	m.number(destinationMethod, uint32(d.Method))
	m.number(destinationWeight, uint32(d.Weight))
	m.number(destinationUpper, 0) // connections are not bounded
	m.number(destinationLower, 0)
	m.shut(nest)
}

func addressFamily(v6 bool) uint16 {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// nest opens an attribute of attributes; shut ends it. Attributes inside are padded, so that it is as well.
func (m *messages) nest(kind uint16) int {
	start := len(m.buf)
	m.buf = binary.NativeEndian.AppendUint16(m.buf, 0)
	m.buf = binary.NativeEndian.AppendUint16(m.buf, kind|unix.NLA_F_NESTED)
	return start
}

func (m *messages) shut(start int) {
	binary.NativeEndian.PutUint16(m.buf[start:], uint16(len(m.buf)-start))
}

func (m *messages) bytes(kind uint16, value []byte) {
	m.buf = binary.NativeEndian.AppendUint16(m.buf, uint16(4+len(value)))
	m.buf = binary.NativeEndian.AppendUint16(m.buf, kind)
	m.buf = append(m.buf, value...)
	for len(m.buf)%4 != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *messages) short(kind, value uint16) {
	m.bytes(kind, binary.NativeEndian.AppendUint16(nil, value))
}

func (m *messages) port(kind, value uint16) {
	m.bytes(kind, binary.BigEndian.AppendUint16(nil, value))
}

func (m *messages) number(kind uint16, value uint32) {
	m.bytes(kind, binary.NativeEndian.AppendUint32(nil, value))
}

func (m *messages) address(kind uint16, a netip.Addr) { m.bytes(kind, a.AsSlice()) }
