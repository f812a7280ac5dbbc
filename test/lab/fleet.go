package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// loadFleet reads the policy files of a folder, for what blades and routers there are. Whether the policy makes sense is for
// `bladectl check` to say; a lab may be there to find out.
func loadFleet(dir string) (*policy.Fleet, []policy.File, error) {
	files, err := policy.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("load fleet: %w", err)
	}
	fleet, diagnostics := policy.Parse(files)
	if err := diagnostics.Err(); err != nil {
		return nil, nil, fmt.Errorf("load fleet: %w", err)
	}
	return fleet, files, nil
}

// makeTopology derives what a lab of a fleet's first n blades, by name, consists of.
func makeTopology(f *policy.Fleet, n int) (topology, error) {
	if n < 1 || n > len(f.Blades) {
		return topology{}, fmt.Errorf("choose blades: %d wanted, the fleet has %d", n, len(f.Blades))
	}
	var t topology
	zones, sites := map[policy.ZoneName]bool{}, map[policy.SiteName]int{}
	for _, b := range f.Blades[:n] {
		if _, known := sites[b.Site]; !known {
			sites[b.Site] = len(t.Sites)
			t.Sites = append(t.Sites, site{Number: len(t.Sites), Name: string(b.Site)})
		}
		t.Blades = append(t.Blades, blade{string(b.Name), b.Trunk, b.Management, sites[b.Site]})
		zones[b.Zone] = true
	}
	vlans := map[policy.VLANID]policy.NetworkName{}
	for _, network := range f.Networks {
		at, here := siteOf(network, sites)
		if !zones[network.Zone] || !here {
			continue
		}
		if other, ok := vlans[network.VLAN]; ok {
			return topology{}, fmt.Errorf("join trunks: VLAN %d is %s and %s, and all trunks meet on one switch", network.VLAN, other, network.Name)
		}
		vlans[network.VLAN] = network.Name
		if len(network.Routers) > 0 {
			t.Sites[at].Networks = append(t.Sites[at].Networks, routed(f, network))
		}
	}
	t.Sites[0].Users, t.Sites[0].Routed = users(f)
	return t, nil
}

// siteOf is where the router of a network stands: at the first of its sites.
func siteOf(network policy.Network, sites map[policy.SiteName]int) (first int, ok bool) {
	if network.Sites == nil {
		return 0, true
	}
	first = len(sites)
	for _, s := range network.Sites {
		if at, here := sites[s]; here {
			first = min(first, at)
		}
	}
	return first, first < len(sites)
}

// usualBFD is what `bfd: true` means.
var usualBFD = policy.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}

// routed derives the router's side of a network. On an uplink the router speaks OSPF and BGP with whatever director comes,
// since directors may be spawned later: as the directors that the files name want it, else by the defaults here.
func routed(f *policy.Fleet, network policy.Network) routedNetwork {
	r := routedNetwork{Name: string(network.Name), VLAN: int(network.VLAN)}
	for _, address := range network.Routers {
		for _, subnet := range network.Subnets {
			if subnet.Contains(address) {
				r.Addresses = append(r.Addresses, netip.PrefixFrom(address, subnet.Bits()))
			}
		}
	}
	if network.Role != policy.NetworkUplink {
		return r
	}
	r.OSPF = &ospfPeer{Area: "0.0.0.0", Hello: 1, Dead: 4, BFD: usualBFD}
	r.BGP = &bgpPeer{AS: 64500, PeerAS: 64512, BFD: usualBFD}
	for _, d := range f.Directors {
		if d.Eth0.Network != network.Name {
			continue
		}
		if d.OSPF != nil {
			r.OSPF = &ospfPeer{d.OSPF.Area, int(d.OSPF.Hello / time.Second), int(d.OSPF.Dead / time.Second), d.OSPF.BFD}
		}
		if d.BGP != nil {
			r.BGP = &bgpPeer{d.BGP.PeerAS, d.BGP.AS, d.BGP.BFD}
		}
		if d.VRRP != nil { // which is for routers that speak neither
			r.OSPF, r.BGP = nil, nil
		}
	}
	return r
}

// users derives who lives behind the router: addresses that the files' expectations speak from become the client's, and
// prefixes that rules and services name are routed to it, so that a test can add an address of any of them.
func users(f *policy.Fleet) (addresses []netip.Addr, routed []netip.Prefix) {
	add := func(p netip.Prefix) {
		if !p.IsValid() || taken(f, p) {
			return
		}
		routed = append(routed, p)
	}
	for _, e := range f.Expectations {
		a := e.From.Address
		if !a.IsValid() || taken(f, netip.PrefixFrom(a, a.BitLen())) {
			continue
		}
		addresses = append(addresses, a)
		add(netip.PrefixFrom(a, a.BitLen()))
	}
	for _, rule := range slices.Concat(f.Rules, f.Hosts) {
		for _, from := range rule.From {
			add(from.Prefix)
		}
	}
	for _, service := range f.Services {
		for _, client := range service.Clients {
			add(client)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	slices.SortFunc(routed, comparePrefixes)
	return slices.Compact(addresses), slices.Compact(routed)
}

// taken says whether a prefix reaches into a network of the fleet, a VIP, or what the lab itself uses.
func taken(f *policy.Fleet, p netip.Prefix) bool {
	if slices.ContainsFunc(lab, p.Overlaps) {
		return true
	}
	for _, s := range f.Services {
		if p.IsSingleIP() && slices.Contains(s.VIPs, p.Addr()) {
			return true
		}
	}
	return slices.ContainsFunc(f.Networks, func(n policy.Network) bool { return slices.ContainsFunc(n.Subnets, p.Overlaps) })
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
