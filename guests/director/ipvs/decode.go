package ipvs

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	lib "github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// decodeService and its sisters translate what the library reads, which mixes the kernel's own bits into Flags and ConnectionFlags.
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

func decodeDestination(e *lib.Destination) (Destination, error) {
	a, err := decodeAddress(e.Address)
	return Destination{
		Address: a, Port: e.Port, Method: Method(e.ConnectionFlags & methodMask), Weight: e.Weight,
		Active: e.ActiveConnections, Inactive: e.InactiveConnections,
		Rate: Rate{e.Stats.CPS, e.Stats.PPSIn, e.Stats.BPSIn},
	}, err
}

func decodeAddress(ip net.IP) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}, fmt.Errorf("decode address: %d bytes", len(ip))
	}
	return a, nil
}
