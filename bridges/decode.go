package bridges

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// Attributes that neither x/sys/unix nor the netlink library names. Sources: linux/if_link.h, linux/ipv6.h, linux/addrconf.h.
const (
	tunType       = 3 // IFLA_TUN_TYPE
	tunMultiQueue = 7 // IFLA_TUN_MULTI_QUEUE

	inet6Conf        = 2  // IFLA_INET6_CONF: an array of 32-bit values
	inet6AddrGenMode = 8  // IFLA_INET6_ADDR_GEN_MODE
	confDisableIPv6  = 26 // DEVCONF_DISABLE_IPV6
	genModeNone      = 1  // IN6_ADDR_GEN_MODE_NONE
)

var errShort = errors.New("decode link message: shorter than its header")

// attributes walks over netlink attributes. What is left of a malformed list is not told of.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// decodeLink reads one RTM_NEWLINK message without its netlink header. Names of master and parent are not in it: see named.
func decodeLink(m []byte) (Link, error) {
	if len(m) < unix.SizeofIfInfomsg {
		return Link{}, errShort
	}
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(m[4:]))),
		Up:    binary.NativeEndian.Uint32(m[8:])&unix.IFF_UP != 0,
	}
	var info []byte
	for kind, v := range attributes(m[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(v)
		case unix.IFLA_IFALIAS:
			l.Alias = text(v)
		case unix.IFLA_MTU:
			l.MTU = int(number(v))
		case unix.IFLA_GROUP:
			l.Group = number(v)
		case unix.IFLA_MASTER:
			l.master = int(number(v))
		case unix.IFLA_LINK:
			l.link = int(number(v))
		case unix.IFLA_ADDRESS:
			l.MAC = mac(v)
		case unix.IFLA_PROP_LIST:
			l.AltNames = altNames(v)
		case unix.IFLA_AF_SPEC:
			l.IPv6 = decodeIPv6(v)
		case unix.IFLA_LINKINFO:
			info = v
		}
	}
	decodeInfo(info, &l)
	return l, nil
}

func altNames(b []byte) []string {
	var out []string
	for kind, v := range attributes(b) {
		if kind == unix.IFLA_ALT_IFNAME {
			out = append(out, text(v))
		}
	}
	slices.Sort(out)
	return out
}

// decodeIPv6 says whether IPv6 may speak on a link. Without an AF_INET6 part IPv6 is not on the link at all.
func decodeIPv6(b []byte) bool {
	for family, v := range attributes(b) {
		if family != unix.AF_INET6 {
			continue
		}
		disabled, mode := uint32(0), byte(0)
		for kind, v := range attributes(v) {
			switch {
			case kind == inet6Conf && len(v) >= 4*(confDisableIPv6+1):
				disabled = number(v[4*confDisableIPv6:])
			case kind == inet6AddrGenMode && len(v) > 0:
				mode = v[0]
			}
		}
		return disabled == 0 || mode != genModeNone
	}
	return false
}

func decodeInfo(b []byte, l *Link) {
	var data, port []byte
	master := ""
	for kind, v := range attributes(b) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = Kind(text(v))
		case unix.IFLA_INFO_DATA:
			data = v
		case unix.IFLA_INFO_SLAVE_KIND:
			master = text(v)
		case unix.IFLA_INFO_SLAVE_DATA:
			port = v
		}
	}
	if Kind(master) == KindBridge {
		l.Port = decodePort(port)
	}
	switch l.Kind {
	case KindVLAN:
		l.VLAN = decodeVLAN(data)
	case KindBridge:
		l.Bridge = decodeBridge(data)
	case KindTap:
		l.Tap = decodeTap(data)
	}
}

func decodeVLAN(b []byte) VLANState {
	var s VLANState
	for kind, v := range attributes(b) {
		switch kind {
		case nl.IFLA_VLAN_ID:
			s.ID = policy.VLANID(number(v))
		case nl.IFLA_VLAN_PROTOCOL:
			if len(v) >= 2 {
				s.Protocol = binary.BigEndian.Uint16(v)
			}
		}
	}
	return s
}

func decodeBridge(b []byte) BridgeState {
	var s BridgeState
	for kind, v := range attributes(b) {
		switch kind {
		case nl.IFLA_BR_FORWARD_DELAY:
			s.ForwardDelay = number(v)
		case nl.IFLA_BR_STP_STATE:
			s.STP = number(v) != 0
		case nl.IFLA_BR_VLAN_FILTERING:
			s.VLANFiltering = number(v) != 0
		case nl.IFLA_BR_MCAST_SNOOPING:
			s.Snooping = number(v) != 0
		case nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES, nl.IFLA_BR_NF_CALL_ARPTABLES:
			s.CallIPTables = s.CallIPTables || number(v) != 0
		}
	}
	return s
}

func decodeTap(b []byte) TapState {
	var s TapState
	for kind, v := range attributes(b) {
		switch kind {
		case tunType:
			s.Tap = number(v) == unix.IFF_TAP
		case tunMultiQueue:
			s.MultiQueue = number(v) != 0
		}
	}
	return s
}

// named fills in the names of masters and parents, which the kernel gives as indexes, and returns the links by name.
func named(links []Link) map[string]Link {
	byIndex := make(map[int]string, len(links))
	for _, l := range links {
		byIndex[l.Index] = l.Name
	}
	out := make(map[string]Link, len(links))
	for _, l := range links {
		l.Master = byIndex[l.master]
		if l.Kind == KindVLAN {
			l.Parent = byIndex[l.link]
		}
		out[l.Name] = l
	}
	return out
}

// join tells a veth of its other end, if that is among the links of its guest's namespace. Both ends must name the other's index: an index
// alone means nothing in another namespace.
func join(l Link, guest policy.GuestName, inside []Link) Link {
	for _, in := range inside {
		if in.Kind == KindVeth && in.Index == l.link && in.link == l.Index {
			l.Inside = End{Guest: guest, Name: in.Name, Index: in.Index, MAC: in.MAC, MTU: in.MTU}
		}
	}
	return l
}

func number(b []byte) uint32 {
	switch {
	case len(b) >= 4:
		return binary.NativeEndian.Uint32(b)
	case len(b) >= 2:
		return uint32(binary.NativeEndian.Uint16(b))
	case len(b) == 1:
		return uint32(b[0])
	}
	return 0
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func mac(b []byte) policy.MAC {
	if len(b) != len(policy.MAC{}) {
		return policy.MAC{}
	}
	return policy.MAC(b)
}
