package bridges

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// bytesOf joins the parts of a request as they go over the socket.
func bytesOf(data []nl.NetlinkRequestData) []byte {
	var out []byte
	for _, d := range data {
		out = append(out, d.Serialize()...)
	}
	return out
}

// TestEncodeDecode reads the messages that create links with the decoder for the kernel's answers: both speak one format.
func TestEncodeDecode(t *testing.T) {
	mac := policy.MAC{2, 1, 2, 3, 4, 5}
	for _, c := range []struct {
		name string
		data []nl.NetlinkRequestData
		want Link
	}{
		{"bridge", encodeBridge(Bridge{Name: "br120", MAC: mac}, 9000), Link{Name: "br120", Kind: KindBridge, MAC: mac, MTU: 9000, Group: newborn}},
		{"vlan", encodeVLAN(VLAN{Name: "vlan4094", ID: 4094}, 7, 1500), Link{Name: "vlan4094", Kind: KindVLAN, MTU: 1500, Group: newborn, VLAN: VLANState{ID: 4094}, link: 7}},
		{"veth", encodeVeth(Port{Name: "www-1.0", Interface: "eth0", MAC: mac, GuestMAC: mac}, 0, 9), Link{Name: "www-1.0", Kind: KindVeth, MAC: mac, Group: newborn}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeLink(bytesOf(c.data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(Link{})); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPortSettings reads what closes a port, and the entry that pins its guest's address.
func TestPortSettings(t *testing.T) {
	got, err := decodeLink(append(header(7).Serialize(), encodePortSettings().Serialize()...))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Link{Index: 7}, got, cmp.AllowUnexported(Link{})); diff != "" {
		t.Errorf("port (-want +got):\n%s", diff)
	}
	open := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	open.AddRtAttr(unix.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	data := open.AddRtAttr(unix.IFLA_INFO_SLAVE_DATA, nil)
	data.AddRtAttr(nl.IFLA_BRPORT_LEARNING, nl.Uint8Attr(1))
	data.AddRtAttr(nl.IFLA_BRPORT_UNICAST_FLOOD, nl.Uint8Attr(1))
	got, err = decodeLink(append(header(7).Serialize(), open.Serialize()...))
	if want := (PortState{Learning: true, Flood: true}); err != nil || cmp.Diff(want, got.Port) != "" {
		t.Errorf("an open port is %+v, %v, want %+v", got.Port, err, want)
	}

	want := pin{index: 42, mac: policy.MAC{2, 1, 2, 3, 4, 5}}
	message := bytesOf(encodePin(want))
	if got, ok := decodePin(message); !ok || got != want {
		t.Errorf("pin is %+v, %v, want %+v", got, ok, want)
	}
	if got := decodePins([][]byte{message, message}); len(got[42]) != 1 {
		t.Errorf("two entries for one address are %v", got)
	}
	for name, spoil := range map[string]func(m []byte){
		"another family": func(m []byte) { m[0] = unix.AF_INET },
		"not sticky":     func(m []byte) { m[10] = unix.NTF_MASTER },
		"no address":     func(m []byte) { m[14] = 99 },
	} {
		other := append([]byte{}, message...)
		spoil(other)
		if _, ok := decodePin(other); ok {
			t.Errorf("%s: taken for a pin", name)
		}
	}
}

// FuzzDecodePin demands that no message makes the decoder panic.
func FuzzDecodePin(f *testing.F) {
	f.Add(bytesOf(encodePin(pin{index: 42, mac: policy.MAC{2, 1, 2, 3, 4, 5}})))
	f.Add([]byte{unix.AF_BRIDGE})
	f.Fuzz(func(t *testing.T, m []byte) {
		if p, ok := decodePin(m); ok && p.mac == (policy.MAC{}) {
			t.Error("a pin without an address")
		}
	})
}

// TestVethPeer looks into the peer's part of the message that makes a veth.
func TestVethPeer(t *testing.T) {
	p := Port{Name: "www-1.0", Interface: "eth1", MAC: policy.MAC{0xfe, 0, 0, 0, 0, 1}, GuestMAC: policy.MAC{2, 0, 0, 0, 0, 1}}
	message := bytesOf(encodeVeth(p, 9000, 42))
	info := find(find(message[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO), unix.IFLA_INFO_DATA)
	peer := find(info, nl.VETH_INFO_PEER)
	got, err := decodeLink(peer)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Link{Name: "eth1", MAC: p.GuestMAC, MTU: 9000}); cmp.Diff(want, got, cmp.AllowUnexported(Link{})) != "" {
		t.Errorf("peer is %+v, want %+v", got, want)
	}
	if fd := number(find(peer[unix.SizeofIfInfomsg:], unix.IFLA_NET_NS_FD)); fd != 42 {
		t.Errorf("peer goes to descriptor %d, want 42", fd)
	}
}

func find(b []byte, kind uint16) []byte {
	for k, v := range attributes(b) {
		if k == kind {
			return v
		}
	}
	return nil
}

// TestDecodeState decodes what only the kernel says: settings of bridges and taps, IPv6, alternative names.
func TestDecodeState(t *testing.T) {
	conf := make([]byte, 4*(confDisableIPv6+2))
	binary.NativeEndian.PutUint32(conf[4*confDisableIPv6:], 1)
	inet6 := func(conf []byte, mode byte) *nl.RtAttr {
		spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		family := spec.AddRtAttr(unix.AF_INET6, nil)
		family.AddRtAttr(inet6Conf, conf)
		family.AddRtAttr(inet6AddrGenMode, []byte{mode})
		return spec
	}
	bridge, data := linkInfo(KindBridge)
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(1))
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(1500))
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(1))
	data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(1))
	data.AddRtAttr(nl.IFLA_BR_NF_CALL_IPTABLES, nl.Uint8Attr(0))
	data.AddRtAttr(nl.IFLA_BR_NF_CALL_ARPTABLES, nl.Uint8Attr(1))
	tap, data := linkInfo(KindTap)
	data.AddRtAttr(tunType, nl.Uint8Attr(unix.IFF_TAP))
	data.AddRtAttr(tunMultiQueue, nl.Uint8Attr(1))
	names := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
	names.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated("b"))
	names.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated("a"))
	for _, c := range []struct {
		name string
		attr *nl.RtAttr
		want Link
	}{
		{"ipv6 off", inet6(conf, genModeNone), Link{}},
		{"ipv6 off, would come back with an address", inet6(conf, 0), Link{IPv6: true}},
		{"ipv6 on", inet6(make([]byte, len(conf)), genModeNone), Link{IPv6: true}},
		{"bridge", bridge, Link{Kind: KindBridge, Bridge: BridgeState{STP: true, ForwardDelay: 1500, Snooping: true, VLANFiltering: true, CallIPTables: true}}},
		{"tap", tap, Link{Kind: KindTap, Tap: TapState{Tap: true, MultiQueue: true}}},
		{"names", names, Link{AltNames: []string{"a", "b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeLink(append(header(0).Serialize(), c.attr.Serialize()...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(Link{})); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzDecodeLink feeds the decoder any bytes: it must not panic, and what it read must not depend on what follows the message.
func FuzzDecodeLink(f *testing.F) {
	f.Add(bytesOf(encodeBridge(Bridge{Name: "br120", MAC: policy.MAC{2}}, 9000)))
	f.Add(bytesOf(encodeVLAN(VLAN{Name: "vlan1", ID: 1}, 7, 1500)))
	f.Add(bytesOf(encodeVeth(Port{Name: "www-1.0", Interface: "eth0"}, 1500, 9)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLink(b)
		if err != nil {
			if len(b) >= unix.SizeofIfInfomsg {
				t.Errorf("error for a message with a header: %v", err)
			}
			return
		}
		if strings.ContainsRune(l.Name, 0) || strings.ContainsRune(l.Alias, 0) {
			t.Errorf("a zero byte in name %q or alias %q", l.Name, l.Alias)
		}
		named([]Link{l})
	})
}

func TestDecodeShort(t *testing.T) {
	if _, err := decodeLink(make([]byte, unix.SizeofIfInfomsg-1)); !errors.Is(err, errShort) {
		t.Errorf("error is %v", err)
	}
}

// TestJoin pairs ends of veths by both indexes: indexes of different namespaces mean different links.
func TestJoin(t *testing.T) {
	mac := policy.MAC{2, 0, 0, 0, 0, 1}
	host := Link{Name: "b.0", Index: 11, Kind: KindVeth, link: 2}
	end := Link{Name: "eth0", Index: 2, Kind: KindVeth, MAC: mac, MTU: 1500, link: 11}
	want := End{Guest: "b", Name: "eth0", Index: 2, MAC: mac, MTU: 1500}
	if got := join(host, "b", []Link{end}).Inside; got != want {
		t.Errorf("leads to %+v, want %+v", got, want)
	}
	for name, in := range map[string]Link{
		"another's end":   {Index: 2, Kind: KindVeth, link: 10},
		"another link":    {Index: 3, Kind: KindVeth, link: 11},
		"no veth at all":  {Index: 2, Kind: "dummy", link: 11},
		"no link at all?": {},
	} {
		if got := join(host, "b", []Link{in}).Inside; got != (End{}) {
			t.Errorf("%s: leads to %+v", name, got)
		}
	}
}

// TestExplain demands that an operator reads what to do, and that a program still sees the errno.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		err  error
		want string
	}{
		{KindVLAN, wrapped(unix.EOPNOTSUPP, "Unknown device type"), "modprobe 8021q"},
		{KindBridge, wrapped(unix.EOPNOTSUPP, "Unknown device type"), "modprobe bridge"},
		{KindVeth, wrapped(unix.EOPNOTSUPP, "Unknown device type"), "modprobe veth"},
		{KindTap, wrapped(unix.ENOENT, "open /dev/net/tun"), "modprobe tun"},
		{KindTap, wrapped(unix.ENODEV, "open /dev/net/tun"), "modprobe tun"},
		{KindBridge, wrapped(unix.EPERM, ""), "CAP_NET_ADMIN"},
	} {
		got := explain(c.kind, c.err)
		if !errors.Is(got, errors.Unwrap(c.err)) || !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s, %v: %v, want it to say %q", c.kind, c.err, got, c.want)
		}
	}
	other := wrapped(unix.EOPNOTSUPP, "something else")
	if got := explain(KindBridge, other); !errors.Is(got, unix.EOPNOTSUPP) || strings.Contains(got.Error(), "modprobe") {
		t.Errorf("%v", got)
	}
	if explain(KindVLAN, nil) != nil {
		t.Error("no error was explained")
	}
}

func wrapped(err error, text string) error { return &kernelError{err, text} }

// kernelError is an errno with the kernel's words, as the netlink library gives it.
type kernelError struct {
	err  error
	text string
}

func (e *kernelError) Error() string { return e.err.Error() + ": " + e.text }
func (e *kernelError) Unwrap() error { return e.err }
