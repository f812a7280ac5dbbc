package ipvs

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	lib "github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// encodeService and its sisters translate between our values and the library's, which leaves family and netmask to its caller
// and mixes the kernel's own bits into Flags and ConnectionFlags.
func encodeService(s Service) *lib.Service {
	e := &lib.Service{
		SchedName: s.Scheduler, Flags: uint32(s.Flags), Timeout: uint32(s.Persistence / time.Second), Netmask: s.Netmask,
		AddressFamily: unix.AF_INET,
	}
	if s.IPv6 {
		e.AddressFamily = unix.AF_INET6
	}
	if e.Netmask == 0 {
		e.Netmask = wholeAddress(s.IPv6)
	}
	if s.Mark != 0 {
		e.FWMark = s.Mark
		return e
	}
	e.Address, e.Protocol, e.Port = net.IP(s.Address.AsSlice()), s.Protocol, s.Port
	return e
}

func decodeService(e *lib.Service) (Service, error) {
	s := Service{
		Key:         Key{Mark: e.FWMark, IPv6: e.AddressFamily == unix.AF_INET6},
		Scheduler:   e.SchedName,
		Flags:       Flags(e.Flags) &^ flagHashed,
		Persistence: time.Duration(e.Timeout) * time.Second,
		Netmask:     e.Netmask,
	}
	if e.FWMark != 0 {
		return s, nil
	}
	var err error
	s.Protocol, s.Port = e.Protocol, e.Port
	s.Address, err = decodeAddress(e.Address)
	return s, err
}

func encodeDestination(d Destination) *lib.Destination {
	e := &lib.Destination{
		Address: net.IP(d.Address.AsSlice()), Port: d.Port, Weight: d.Weight,
		ConnectionFlags: uint32(d.Method), AddressFamily: unix.AF_INET,
	}
	if d.Address.Is6() {
		e.AddressFamily = unix.AF_INET6
	}
	return e
}

func decodeDestination(e *lib.Destination) (Destination, error) {
	a, err := decodeAddress(e.Address)
	return Destination{
		Address: a, Port: e.Port, Method: Method(e.ConnectionFlags & methodMask), Weight: e.Weight,
		Active: e.ActiveConnections, Inactive: e.InactiveConnections,
	}, err
}

func decodeAddress(ip net.IP) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}, fmt.Errorf("decode address: %d bytes", len(ip))
	}
	return a, nil
}
