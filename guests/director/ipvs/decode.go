package ipvs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// errShort is an answer whose attributes are not as long as they must be.
var errShort = errors.New("the kernel's answer is cut short")

// fields reads the attributes of one nest, each at its kind. What is missing reads as 0; what is too short is remembered.
type fields struct {
	at  [16][]byte
	bad bool
}

func readFields(data []byte) *fields {
	f := &fields{}
	for kind, value := range eachAttribute(data) {
		if int(kind) < len(f.at) {
			f.at[kind] = value
		}
	}
	return f
}

func (f *fields) err() error {
	if f.bad {
		return errShort
	}
	return nil
}

func (f *fields) bytes(kind, n int) []byte {
	v := f.at[kind]
	if v == nil || len(v) >= n {
		return v
	}
	f.bad = true
	return nil
}

func (f *fields) short(kind int) uint16 {
	if v := f.bytes(kind, 2); v != nil {
		return binary.NativeEndian.Uint16(v)
	}
	return 0
}

func (f *fields) port(kind int) uint16 {
	if v := f.bytes(kind, 2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (f *fields) number(kind int) uint32 {
	if v := f.bytes(kind, 4); v != nil {
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

func (f *fields) long(kind int) uint64 {
	if v := f.bytes(kind, 8); v != nil {
		return binary.NativeEndian.Uint64(v)
	}
	return 0
}

func (f *fields) text(kind int) string {
	name, _, _ := bytes.Cut(f.at[kind], []byte{0})
	return string(name)
}

// address reads the beginning of what the kernel keeps for both families.
func (f *fields) address(kind int, v6 bool) netip.Addr {
	n := 4
	if v6 {
		n = 16
	}
	v := f.bytes(kind, n)
	if v == nil {
		f.bad = true
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(v[:n])
	return a
}

// nested returns the attribute of one entry that holds all of it.
func nested(attributes []byte, kind uint16) (*fields, error) {
	for k, value := range eachAttribute(attributes) {
		if k == kind {
			return readFields(value), nil
		}
	}
	return nil, errShort
}

// decodeService reads one entry of the list of services, without its destinations.
func decodeService(attributes []byte) (Service, error) {
	f, err := nested(attributes, attrService)
	if err != nil {
		return Service{}, err
	}
	s := Service{
		Key:         Key{Mark: f.number(serviceMark), IPv6: f.short(serviceFamily) == unix.AF_INET6},
		Scheduler:   f.text(serviceScheduler),
		Flags:       Flags(f.number(serviceFlags)) &^ flagHashed,
		Persistence: time.Duration(f.number(serviceTimeout)) * time.Second,
		Netmask:     f.number(serviceNetmask),
	}
	if s.Mark == 0 {
		s.Protocol, s.Port = f.short(serviceProtocol), f.port(servicePort)
		s.Address = f.address(serviceAddress, s.IPv6)
	}
	return s, f.err()
}

// decodeDestination reads one entry of the list of a service's destinations. Kernels before 3.18 do not say its family: it is the
// service's then.
func decodeDestination(attributes []byte, v6 bool) (Destination, error) {
	f, err := nested(attributes, attrDestination)
	if err != nil {
		return Destination{}, err
	}
	if family := f.short(destinationFamily); family != 0 {
		v6 = family == unix.AF_INET6
	}
	d := Destination{
		Address: f.address(destinationAddress, v6), Port: f.port(destinationPort), Method: Method(f.number(destinationMethod) & methodMask),
		Weight: int(f.number(destinationWeight)), Active: int(f.number(destinationActive)), Inactive: int(f.number(destinationInactive)),
	}
	if stats := f.at[destinationStats64]; stats != nil {
		n := readFields(stats)
		d.Total = Count{n.long(statsConnections), n.long(statsPackets), n.long(statsBytes)}
		d.Rate = Count{n.long(statsConnectionRate), n.long(statsPacketRate), n.long(statsByteRate)}
		f.bad = f.bad || n.bad
	}
	return d, f.err()
}
