package policy

import (
	"encoding/hex"
	"fmt"
)

// Names are RFC 1123 labels in lower case; each kind has a type of its own so that one is never taken for another.
type (
	// ZoneName names an infrastructure (public, private) that shares nothing with the others.
	ZoneName string
	// SiteName names a place with its own backbone router.
	SiteName string
	// NetworkName names one VLAN and its subnets.
	NetworkName string
	// BladeName names a virtualization host.
	BladeName string
	// GuestName names a director or a real server; unique over both.
	GuestName string
	// ServiceName names what users reach.
	ServiceName string
	// VolumeName names a volume of a guest; two guests' volumes of one name are two.
	VolumeName string
)

// VLANID is an 802.1Q VLAN identifier, 1 to 4094.
type VLANID uint16

// Role says what a guest is for.
type Role string

// The roles of a guest.
const (
	RoleDirector   Role = "director"
	RoleRealServer Role = "realserver"
)

// Driver says what runs a guest.
type Driver string

// The drivers: libvirt's KVM for directors, LXC for real servers.
const (
	DriverKVM Driver = "kvm"
	DriverLXC Driver = "lxc"
)

// NetworkRole says what a network carries.
type NetworkRole string

// The roles of a network (uplink: eth0 of directors; service: eth1 of all guests; return: eth0 of real servers).
const (
	NetworkUplink  NetworkRole = "uplink"
	NetworkService NetworkRole = "service"
	NetworkReturn  NetworkRole = "return"
)

// MAC is an Ethernet address of six bytes. The zero value means none.
type MAC [6]byte

// String writes the address as six pairs of hexadecimal digits joined by colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText writes the address as String does.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(text []byte) error {
	if len(text) != 17 {
		return fmt.Errorf("parse MAC %q: not six colon-separated bytes", text)
	}
	for i := range m {
		if i < 5 && text[i*3+2] != ':' {
			return fmt.Errorf("parse MAC %q: not six colon-separated bytes", text)
		}
		if _, err := hex.Decode(m[i:i+1], text[i*3:i*3+2]); err != nil {
			return fmt.Errorf("parse MAC %q: %w", text, err)
		}
	}
	return nil
}

// Pos is a place in a policy file. Line and Col count from 1; the zero value means no place.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// String writes the place as file:line:col.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }
