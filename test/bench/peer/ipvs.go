package peer

import (
	"fmt"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// Balance writes IPVS services in IPv4 with the library that Docker uses, one request after the other, all destinations of weight 1 by
// direct routing, into the namespace at path.
func Balance(path string, services []policy.VirtualService) error {
	h, err := ipvs.New(path)
	if err != nil {
		return fmt.Errorf("open ipvs: %w", err)
	}
	defer h.Close()
	for _, v := range services {
		s := &ipvs.Service{
			Address: v.VIP.AsSlice(), Protocol: unix.IPPROTO_TCP, Port: v.Port, SchedName: v.Scheduler, AddressFamily: unix.AF_INET, Netmask: 0xffffffff,
		}
		if err := h.NewService(s); err != nil {
			return fmt.Errorf("add service %s: %w", v.VIP, err)
		}
		for _, d := range v.Destinations {
			to := &ipvs.Destination{Address: d.Address.AsSlice(), Port: d.Port, Weight: 1, ConnectionFlags: ipvs.ConnectionFlagDirectRoute, AddressFamily: unix.AF_INET}
			if err := h.NewDestination(s, to); err != nil {
				return fmt.Errorf("add server %s of %s: %w", d.Address, v.VIP, err)
			}
		}
	}
	return nil
}
