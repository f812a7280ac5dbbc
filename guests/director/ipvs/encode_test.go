package ipvs

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// attributes splits a run of attributes; it must fill its length.
func attributes(t *testing.T, data []byte) map[uint16][]byte {
	t.Helper()
	out := map[uint16][]byte{}
	for len(data) > 0 {
		if len(data) < 4 {
			t.Fatalf("%d bytes are left", len(data))
		}
		length, kind := int(binary.NativeEndian.Uint16(data)), binary.NativeEndian.Uint16(data[2:])&^uint16(unix.NLA_F_NESTED)
		if length < 4 || length > len(data) || out[kind] != nil {
			t.Fatalf("attribute %d of %d bytes in %d", kind, length, len(data))
		}
		out[kind] = data[4:length]
		data = data[min((length+3)&^3, len(data)):]
	}
	return out
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func short(n uint16) []byte  { return binary.NativeEndian.AppendUint16(nil, n) }
func network(n uint16) []byte {
	return binary.BigEndian.AppendUint16(nil, n)
}

func TestEncodeStep(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	steps := []Step{
		{
			Op: AddService,
			Service: Service{
				Key: Key{Address: netip.MustParseAddr("203.0.113.10"), Protocol: 6, Port: 443}, Scheduler: "mh", Flags: FlagPersistent | FlagPort,
				Persistence: time.Minute, Netmask: 0x00ffffff,
			},
		},
		{
			Op: SetDestination, Service: Service{Key: Key{Address: v6, IPv6: true, Protocol: 17, Port: 53}, Scheduler: "rr"},
			Destination: Destination{Address: v6.Next(), Port: 53, Method: Route, Weight: 70_000},
		},
		{Op: DelService, Service: Service{Key: Key{Mark: 7, IPv6: true}, Scheduler: "fo"}},
	}
	want := []struct {
		command              byte
		service, destination map[uint16][]byte
	}{
		{1, map[uint16][]byte{
			1: short(unix.AF_INET), 2: short(6), 3: {203, 0, 113, 10}, 4: network(443), 6: []byte("mh\x00"),
			7: append(number(0x11), 0xff, 0xff, 0xff, 0xff), 8: number(60), 9: number(0x00ffffff),
		}, nil},
		{6, map[uint16][]byte{
			1: short(unix.AF_INET6), 2: short(17), 3: v6.AsSlice(), 4: network(53), 6: []byte("rr\x00"),
			7: append(number(0), 0xff, 0xff, 0xff, 0xff), 8: number(0), 9: number(128),
		}, map[uint16][]byte{
			1: v6.Next().AsSlice(), 2: network(53), 3: number(3), 4: number(70_000), 5: number(0), 6: number(0), 11: short(unix.AF_INET6),
		}},
		{3, map[uint16][]byte{
			1: short(unix.AF_INET6), 5: number(7), 6: []byte("fo\x00"), 7: append(number(0), 0xff, 0xff, 0xff, 0xff), 8: number(0), 9: number(128),
		}, nil},
	}
	var m messages
	for i, s := range steps {
		m.step(s, 33, uint32(i+5))
	}
	i := 0
	eachMessage(m.buf, func(kind uint16, seq uint32, body []byte) {
		if kind != 33 || seq != uint32(i+5) || body[0] != want[i].command || body[1] != 1 {
			t.Errorf("message %d: family %d, number %d, command %d, version %d", i, kind, seq, body[0], body[1])
		}
		got := attributes(t, body[genlHeader:])
		if diff := cmp.Diff(want[i].service, attributes(t, got[attrService])); diff != "" {
			t.Errorf("service of message %d (-want +got):\n%s", i, diff)
		}
		if want[i].destination == nil {
			if got[attrDestination] != nil {
				t.Errorf("message %d has a destination", i)
			}
		} else if diff := cmp.Diff(want[i].destination, attributes(t, got[attrDestination])); diff != "" {
			t.Errorf("destination of message %d (-want +got):\n%s", i, diff)
		}
		i++
	})
	if i != len(steps) {
		t.Errorf("%d messages, want %d", i, len(steps))
	}
}

// FuzzAnswers feeds the decoders of the kernel's answers with anything: they must end, and read nothing beyond it.
func FuzzAnswers(f *testing.F) {
	var m messages
	m.step(Step{Op: AddService, Service: Service{Key: Key{Mark: 1}, Scheduler: "rr"}}, 33, 1)
	f.Add(m.buf)
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xef, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, data []byte) {
		eachMessage(data, func(_ uint16, _ uint32, body []byte) {
			_ = answered(body)
			familyID(body)
			_, _ = decodeService(body)
			_, _ = decodeDestination(body, true)
			_, _ = decodeDaemon(body)
		})
	})
}
