package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// portNameLength is what IFNAMSIZ leaves for a link's name without its NUL (include/uapi/linux/if.h).
const portNameLength = 15

// PortName names the host's end of a guest's interface (eth0, eth1): guest.0 and guest.1 when that fits a link's 15 bytes, else
// six bytes of the guest's name, an underscore, six hexadecimal digits of the SHA-256 of the whole name, and .0 or .1.
func PortName(guest GuestName, iface string) string {
	suffix := "." + strings.TrimPrefix(iface, "eth")
	if len(guest)+len(suffix) <= portNameLength {
		return string(guest) + suffix
	}
	sum := sha256.Sum256([]byte(guest))
	return string(guest[:6]) + "_" + hex.EncodeToString(sum[:3]) + suffix
}

// MACOf derives the Ethernet address of a guest's interface: 02, locally administered, and five bytes of the SHA-256 of
// "guest/interface".
func MACOf(guest GuestName, iface string) MAC {
	sum := sha256.Sum256([]byte(string(guest) + "/" + iface))
	return MAC{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

func macsOf(guest GuestName) [2]MAC {
	return [2]MAC{MACOf(guest, interfaceNames[0]), MACOf(guest, interfaceNames[1])}
}

// The range of vsock context identifiers that guests get: far from the reserved ones (vsock(7)) and positive as an int32.
const (
	firstCID = 0x10000
	endCID   = 1 << 31
)

// CIDOf derives a virtual machine's vsock context identifier, from 0x10000 up and below 2^31, from its name.
func CIDOf(guest GuestName) uint32 {
	sum := sha256.Sum256([]byte("cid/" + string(guest)))
	return firstCID + binary.BigEndian.Uint32(sum[:4])%(endCID-firstCID)
}

// VLANLink names the 802.1Q link of a VLAN: vlan120.
func VLANLink(id VLANID) string { return fmt.Sprintf("vlan%d", id) }

// BridgeName names the bridge of a VLAN: br120.
func BridgeName(id VLANID) string { return fmt.Sprintf("br%d", id) }

// NamespacePath is where the host pins a container's network namespace.
func NamespacePath(guest GuestName) string { return "/run/bladenet/netns/" + string(guest) }

// LinkLocal is the IPv6 link-local address that a kernel makes of a MAC by modified EUI-64 (RFC 4291, appendix A).
func LinkLocal(m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 0, 0, 0, 0, 0, 0,
		m[0] ^ 0x02, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5],
	})
}
