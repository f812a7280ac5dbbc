package ipvs

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// body strips the headers of the one message in m.
func body(m messages) []byte { return m.buf[headerLength+genlHeader:] }

func TestDecodeWhatWasEncoded(t *testing.T) {
	for _, want := range []Service{
		{Key: Key{Address: netip.MustParseAddr("203.0.113.10"), Protocol: 6, Port: 443}, Scheduler: "mh", Flags: FlagPersistent | FlagPort, Persistence: time.Minute, Netmask: 0x00ffffff},
		{Key: Key{Address: netip.MustParseAddr("2001:db8::1"), IPv6: true, Protocol: 17, Port: 53}, Scheduler: "rr", Flags: FlagOnePacket, Netmask: 64},
		{Key: Key{Mark: 7, IPv6: true}, Scheduler: "fo", Netmask: 128},
	} {
		var m messages
		m.step(Step{Op: AddService, Service: want}, 33, 1)
		got, err := decodeService(body(m))
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	}
}

func TestDecodeDaemon(t *testing.T) {
	want := daemon{state: backup, link: "eth1", id: 255}
	var m messages
	m.daemon(want, newDaemon, 33, 1)
	if got, err := decodeDaemon(body(m)); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for cut := range body(m) {
		_, _ = decodeDaemon(body(m)[:cut])
	}
}

// TestDecodeCounts holds that counts beyond 32 bits, which a busy service passes within hours, are read whole.
func TestDecodeCounts(t *testing.T) {
	long := func(m *messages, kind uint16, n uint64) { m.bytes(kind, binary.NativeEndian.AppendUint64(nil, n)) }
	var m messages
	start := m.open(33, 5, 0, 1)
	nest := m.nest(attrDestination)
	m.address(destinationAddress, netip.MustParseAddr("10.0.0.1"))
	m.port(destinationPort, 80)
	m.number(destinationMethod, 0x100|uint32(Route))
	m.number(destinationWeight, 70_000)
	m.number(destinationActive, 12)
	m.number(destinationInactive, 34)
	m.short(destinationFamily, addressFamily(false))
	stats := m.nest(destinationStats64)
	for kind, n := range map[uint16]uint64{1: 1 << 33, 2: 1 << 40, 3: 9, 4: 1 << 50, 5: 9, 6: 100, 7: 1000, 8: 9, 9: 5 << 32, 10: 9} {
		long(&m, kind, n)
	}
	m.shut(stats)
	m.shut(nest)
	m.close(start)
	got, err := decodeDestination(body(m), true)
	want := Destination{
		Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Method: Route, Weight: 70_000, Active: 12, Inactive: 34,
		Total: Count{1 << 33, 1 << 40, 1 << 50}, Rate: Count{100, 1000, 5 << 32},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if _, err := decodeService(body(m)); !errors.Is(err, errShort) {
		t.Errorf("a destination read as a service: %v", err)
	}
	for cut := range body(m) {
		_, _ = decodeDestination(body(m)[:cut], false)
	}
}
