package inside

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// message is an RTM_NEWADDR message as the kernel writes it.
func message(family, bits, flags byte, attrs ...*nl.RtAttr) []byte {
	m := []byte{family, bits, flags, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(m[4:], 7)
	for _, a := range attrs {
		m = append(m, a.Serialize()...)
	}
	return m
}

func attr(kind int, text string) *nl.RtAttr {
	return nl.NewRtAttr(kind, netip.MustParseAddr(text).AsSlice())
}

func lifetimes(preferred, valid uint32) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFA_CACHEINFO, append(append(nl.Uint32Attr(preferred), nl.Uint32Attr(valid)...), make([]byte, 8)...))
}

func TestDecodeAddress(t *testing.T) {
	const forever = 0xffffffff
	for _, c := range []struct {
		name string
		data []byte
		want Address
	}{
		{
			"IPv4", message(unix.AF_INET, 25, 0, attr(unix.IFA_ADDRESS, "198.51.100.11"), attr(unix.IFA_LOCAL, "198.51.100.11"), attr(unix.IFA_BROADCAST, "198.51.100.127"),
				lifetimes(forever, forever)),
			Address{Prefix: netip.MustParsePrefix("198.51.100.11/25"), Broadcast: netip.MustParseAddr("198.51.100.127"), Preferred: true, Lasting: true},
		},
		{
			"point to point", message(unix.AF_INET, 24, 0, attr(unix.IFA_ADDRESS, "192.0.2.8"), attr(unix.IFA_LOCAL, "192.0.2.7")),
			Address{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Peer: netip.MustParsePrefix("192.0.2.8/24"), Preferred: true, Lasting: true},
		},
		{
			"secondary, for a while", message(unix.AF_INET, 25, unix.IFA_F_SECONDARY, attr(unix.IFA_ADDRESS, "198.51.100.11"), attr(unix.IFA_LOCAL, "198.51.100.11"), lifetimes(300, 600)),
			Address{Prefix: netip.MustParsePrefix("198.51.100.11/25"), Secondary: true, Preferred: true},
		},
		{
			"IPv6 VIP", message(unix.AF_INET6, 128, 0, attr(unix.IFA_ADDRESS, "2001:db8:5::10"), nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_PERMANENT)), lifetimes(0, forever)),
			Address{Prefix: netip.MustParsePrefix("2001:db8:5::10/128"), Lasting: true},
		},
		{
			"IPv6 in doubt", message(unix.AF_INET6, 64, 0, attr(unix.IFA_ADDRESS, "2001:db8::1"), nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_TENTATIVE)), lifetimes(forever, forever)),
			Address{Prefix: netip.MustParsePrefix("2001:db8::1/64"), Preferred: true, Lasting: true, Failed: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Link = 7
			got, ok := decodeAddress(c.data)
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); !ok || diff != "" {
				t.Errorf("decoded %v (-want +got):\n%s", ok, diff)
			}
		})
	}
}

func TestDecodeLink(t *testing.T) {
	header := make([]byte, unix.SizeofIfInfomsg)
	header[4], header[8] = 9, unix.IFF_UP
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	m := header
	for _, a := range []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("eth0")), nl.NewRtAttr(unix.IFLA_ADDRESS, mac0[:]), info} {
		m = append(m, a.Serialize()...)
	}
	got, ok := decodeLink(m)
	if want := (Link{Index: 9, Name: "eth0", Kind: "veth", MAC: mac0, Up: true}); !ok || got != want {
		t.Errorf("decoded %+v, %v, want %+v", got, ok, want)
	}
}

func TestDecodeRoute(t *testing.T) {
	header := func(family, bits, table, protocol, kind byte) []byte {
		return []byte{family, bits, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0}
	}
	m := header(unix.AF_INET6, 0, unix.RT_TABLE_MAIN, protocolStatic, unix.RTN_UNICAST)
	for _, a := range []*nl.RtAttr{attr(unix.RTA_GATEWAY, "fe80::1"), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(3)), nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(metric6))} {
		m = append(m, a.Serialize()...)
	}
	want := Route{Destination: netip.MustParsePrefix("::/0"), Metric: metric6, Via: netip.MustParseAddr("fe80::1"), Link: 3, Protocol: protocolStatic}
	if got, ok := decodeRoute(m); !ok || got != want {
		t.Errorf("decoded %+v, %v, want %+v", got, ok, want)
	}
	for name, m := range map[string][]byte{
		"blackhole":   header(unix.AF_INET, 0, unix.RT_TABLE_MAIN, 4, unix.RTN_BLACKHOLE),
		"multicast":   header(128, 0, unix.RT_TABLE_MAIN, 4, unix.RTN_UNICAST),
		"other table": header(unix.AF_INET, 0, 7, 4, unix.RTN_UNICAST),
		"bad length":  header(unix.AF_INET, 77, unix.RT_TABLE_MAIN, 4, unix.RTN_UNICAST),
		"short":       {unix.AF_INET},
	} {
		if got, ok := decodeRoute(m); ok {
			t.Errorf("%s: decoded %+v", name, got)
		}
	}
}

// FuzzDecode feeds the decoders any bytes: they must not panic, and what they call an address or a route must be one.
func FuzzDecode(f *testing.F) {
	f.Add(message(unix.AF_INET, 25, 0, attr(unix.IFA_ADDRESS, "198.51.100.11"), attr(unix.IFA_LOCAL, "198.51.100.11"), lifetimes(1, 2)))
	f.Add(message(unix.AF_INET6, 128, 0, attr(unix.IFA_ADDRESS, "2001:db8:5::10")))
	f.Add([]byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, 4, 0, unix.RTN_UNICAST, 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := decodeAddress(b); ok && !a.Prefix.IsValid() {
			t.Errorf("address %+v", a)
		}
		if r, ok := decodeRoute(b); ok && !r.Destination.IsValid() {
			t.Errorf("route %+v", r)
		}
		if l, ok := decodeLink(b); ok && l.Name == "" {
			t.Errorf("link %+v", l)
		}
	})
}
