package bridges

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// header is the ifinfomsg of a request about the link of this index, or of none.
func header(index int) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return msg
}

func attribute32(kind int, v uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(v)) }

// newLink is what every message that makes a link begins with. The group marks it as ours until it gets its alias.
func newLink(name string, mac policy.MAC, mtu int) []nl.NetlinkRequestData {
	data := []nl.NetlinkRequestData{
		header(0),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		attribute32(unix.IFLA_GROUP, newborn),
	}
	if mac != (policy.MAC{}) {
		data = append(data, nl.NewRtAttr(unix.IFLA_ADDRESS, mac[:]))
	}
	if mtu != 0 {
		data = append(data, attribute32(unix.IFLA_MTU, uint32(mtu)))
	}
	return data
}

// linkInfo returns IFLA_LINKINFO of a kind and the attribute in it that holds the kind's own data.
func linkInfo(kind Kind) (info, data *nl.RtAttr) {
	info = nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(string(kind)))
	return info, info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
}

func encodeBridge(b Bridge, mtu int) []nl.NetlinkRequestData {
	return append(newLink(b.Name, b.MAC, mtu), encodeBridgeSettings())
}

// encodeBridgeSettings makes a plain learning bridge that nothing but the bridge family's filter looks into. VLAN filtering is off on every
// new bridge, and a kernel built without it refuses even to hear of it.
func encodeBridgeSettings() *nl.RtAttr {
	info, data := linkInfo(KindBridge)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	for _, kind := range []int{
		nl.IFLA_BR_MCAST_SNOOPING,
		nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES, nl.IFLA_BR_NF_CALL_ARPTABLES,
	} {
		data.AddRtAttr(kind, nl.Uint8Attr(0))
	}
	return info
}

// encodeBridgeOff switches one setting of a bridge off.
func encodeBridgeOff(kind int, value []byte) *nl.RtAttr {
	info, data := linkInfo(KindBridge)
	data.AddRtAttr(kind, value)
	return info
}

func encodeVLAN(v VLAN, trunk, mtu int) []nl.NetlinkRequestData {
	info, data := linkInfo(KindVLAN)
	data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(v.ID)))
	return append(newLink(v.Name, policy.MAC{}, mtu), attribute32(unix.IFLA_LINK, uint32(trunk)), info)
}

// encodeVeth puts the guest's end into the namespace of the descriptor in the same message, so that it never shows up on the host.
func encodeVeth(p Port, mtu, namespace int) []nl.NetlinkRequestData {
	info, data := linkInfo(KindVeth)
	peer := data.AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.Interface))
	peer.AddRtAttr(unix.IFLA_ADDRESS, p.GuestMAC[:])
	if mtu != 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(namespace)))
	return append(newLink(p.Name, p.MAC, mtu), info)
}
