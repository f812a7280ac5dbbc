package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Table is an IPVS table. A wanted one has its services and destinations in the policy's order; an observed one in the
// kernel's. Only Plan compares them.
type Table struct {
	Services []Service
	// Overdue holds destinations that are not wanted any more and may go although they have connections. Only of a wanted table.
	Overdue map[DestinationKey]bool
}

// Key identifies a service: a firewall mark, or an address, protocol and port.
type Key struct {
	Mark     uint32
	IPv6     bool // says the family of a firewall mark
	Address  netip.Addr
	Protocol uint16 // IP protocol number: 6, 17, 132
	Port     uint16
}

// Service is one virtual service.
type Service struct {
	Key
	Name         policy.ServiceName // of a wanted one only, for people
	Scheduler    string             // rr, wrr, lc, wlc, sh, mh, ...
	Flags        Flags
	Persistence  time.Duration // whole seconds; used with FlagPersistent
	Netmask      uint32        // persistence granularity: 0xffffffff (IPv4), prefix length 128 (IPv6)
	Destinations []Destination
}

// Destination is one real server of a service.
type Destination struct {
	Address netip.Addr
	Port    uint16
	Method  Method
	Weight  int

	// Of a wanted destination only.
	Guest  policy.GuestName
	Base   int    // weight while all is well, from which a Maglev table is sized
	Reason string // why Weight is what it is

	// Of an observed destination only: connections as the kernel counts them.
	Active, Inactive int
	Total            Count // since it is in the table
	Rate             Count // in a second, as the kernel estimates it every two
}

// Count is what came for a destination: new connections, packets, bytes. Answers do not pass a director.
type Count struct{ Connections, Packets, Bytes uint64 }

// DestinationKey identifies a destination in the table.
type DestinationKey struct {
	Service Key
	Address netip.Addr
	Port    uint16
}

// Flags are a service's flags as the kernel has them (linux/ip_vs.h).
type Flags uint32

// The flags that mean something to us. The bits of a scheduler have its own names: sh and mh call the first fallback and the
// second port.
const (
	FlagPersistent Flags = 1 << 0
	flagHashed     Flags = 1 << 1 // the kernel's own, never compared
	FlagOnePacket  Flags = 1 << 2
	FlagFallback   Flags = 1 << 3
	FlagPort       Flags = 1 << 4
	flagScheduler3 Flags = 1 << 5
	flagsManaged         = FlagPersistent | FlagOnePacket | FlagFallback | FlagPort | flagScheduler3
)

// Method is how packets get to a destination (IP_VS_CONN_F_FWD_MASK, linux/ip_vs.h).
type Method uint32

// The methods. Wanted tables use Route, which is LVS-DR; the others are met only in a table that somebody else touched.
const (
	Masquerade Method = 0
	Local      Method = 1
	Tunnel     Method = 2
	Route      Method = 3
)

const methodMask = 7

// flagNames are the policy's names of flags.
var flagNames = map[string]Flags{
	"mh-port": FlagPort, "mh-fallback": FlagFallback,
	"sh-port": FlagPort, "sh-fallback": FlagFallback,
}

// Wanted is the table for services, where weights[i][j] is the weight of services[i].Destinations[j] now, and reasons, if not
// nil, says why. Services and destinations come in the policy's order.
func Wanted(services []policy.VirtualService, weights [][]int, reasons [][]string) (Table, error) {
	var t Table
	for i, v := range services {
		s, err := wantedService(v)
		if err != nil {
			return Table{}, fmt.Errorf("derive service %s %s:%d/%s: %w", v.Service, v.VIP, v.Port, v.Protocol, err)
		}
		for j, d := range v.Destinations {
			if d.Address.Is4() != v.VIP.Is4() {
				return Table{}, fmt.Errorf("derive server %s of %s: %s is not of the VIP's family", d.Guest, v.VIP, d.Address)
			}
			dest := Destination{Address: d.Address, Port: d.Port, Method: Route, Weight: weights[i][j], Guest: d.Guest, Base: max(d.Weight, d.Remote)}
			if reasons != nil {
				dest.Reason = reasons[i][j]
			}
			s.Destinations = merge(s.Destinations, dest)
		}
		t.Services = append(t.Services, s)
	}
	return t, nil
}

// merge appends d, or joins it with the destination at the same address and port: a real server may be a service's sorry server
// too, and the kernel knows it once.
func merge(list []Destination, d Destination) []Destination {
	for i, x := range list {
		if x.endpoint() != d.endpoint() {
			continue
		}
		if d.Weight > x.Weight {
			list[i].Weight, list[i].Reason = d.Weight, d.Reason
		}
		return list
	}
	return append(list, d)
}

// KeyOf is the key of a virtual service. A protocol without virtual services has number 0.
func KeyOf(v policy.VirtualService) Key {
	k := Key{Address: v.VIP, Port: v.Port, IPv6: v.VIP.Is6()}
	switch v.Protocol {
	case policy.TCP:
		k.Protocol = 6
	case policy.UDP:
		k.Protocol = 17
	}
	return k
}

func wantedService(v policy.VirtualService) (Service, error) {
	s := Service{
		Key:       KeyOf(v),
		Name:      v.Service,
		Scheduler: v.Scheduler,
		Netmask:   wholeAddress(v.VIP.Is6()),
	}
	if s.Protocol == 0 {
		return Service{}, fmt.Errorf("protocol %q has no virtual service", v.Protocol)
	}
	for _, name := range v.Flags {
		flag, ok := flagNames[name]
		if !ok {
			return Service{}, fmt.Errorf("unknown scheduler flag %q", name)
		}
		s.Flags |= flag
	}
	if v.Persistence > 0 {
		s.Flags |= FlagPersistent
		s.Persistence = max(v.Persistence.Round(time.Second), time.Second)
		if v.Granularity > 0 {
			s.Netmask = netmask(v.VIP.Is6(), v.Granularity)
		}
	}
	if v.OnePacket {
		s.Flags |= FlagOnePacket
	}
	return s, nil
}

// netmask is the kernel's word for a prefix of so many bits: of IPv4 the mask in network order, of IPv6 the length.
func netmask(ipv6 bool, bits int) uint32 {
	if ipv6 {
		return uint32(bits)
	}
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-bits)))
}

// wholeAddress is the netmask of one client: the library leaves it to its caller, and the kernel refuses 0 for IPv6.
func wholeAddress(ipv6 bool) uint32 {
	if ipv6 {
		return 128
	}
	return 0xffffffff
}

// String writes a key as ADDRESS:PORT/PROTOCOL, or as fwmark NUMBER.
func (k Key) String() string {
	if k.Mark != 0 {
		family := ""
		if k.IPv6 {
			family = " ipv6"
		}
		return fmt.Sprintf("fwmark %d%s", k.Mark, family)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(k.Address, k.Port), protocolName(k.Protocol))
}

func protocolName(number uint16) string {
	switch number {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return fmt.Sprint(number)
}

func (d Destination) endpoint() netip.AddrPort { return netip.AddrPortFrom(d.Address, d.Port) }
