package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"github.com/goccy/go-yaml"
)

// fleet is what the lab needs of policy files: the blades, and what the backbone routers must know. The rest is not read.
type fleet struct {
	Sites     []string                 `yaml:"sites"`
	Networks  map[string]fleetNetwork  `yaml:"networks"`
	Blades    map[string]fleetBlade    `yaml:"blades"`
	Services  map[string]fleetService  `yaml:"services"`
	Directors map[string]fleetDirector `yaml:"directors"`
	Rules     map[string]fleetRule     `yaml:"rules"`
	Hosts     map[string]fleetRule     `yaml:"hosts"`
	Expect    []struct {
		From string `yaml:"from"`
	} `yaml:"expect"`
}

type fleetNetwork struct {
	Zone    string         `yaml:"zone"`
	Role    string         `yaml:"role"`
	VLAN    int            `yaml:"vlan"`
	Sites   []string       `yaml:"sites"`
	Subnets []netip.Prefix `yaml:"subnets"`
	Routers []netip.Addr   `yaml:"routers"`
}

type fleetBlade struct {
	Site       string `yaml:"site"`
	Zone       string `yaml:"zone"`
	Trunk      string `yaml:"trunk"`
	Management string `yaml:"management"`
}

type fleetService struct {
	Clients []string `yaml:"clients"`
}

type fleetRule struct {
	From []string `yaml:"from"`
}

type fleetDirector struct {
	Eth0 struct {
		Network string `yaml:"network"`
	} `yaml:"eth0"`
	Announce struct {
		OSPF *struct {
			Area  string `yaml:"area"`
			Hello string `yaml:"hello"`
			Dead  string `yaml:"dead"`
			BFD   bool   `yaml:"bfd"`
		} `yaml:"ospf"`
		BGP *struct {
			AS     uint32 `yaml:"as"`
			PeerAS uint32 `yaml:"peer-as"`
			BFD    bool   `yaml:"bfd"`
		} `yaml:"bgp"`
	} `yaml:"announce"`
}

// fleetFiles lists the policy files of a folder in name order.
func fleetFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("no policy files (*.yaml, *.yml)")
	}
	return files, nil
}

// loadFleet reads the policy files of a folder. It trusts them: `bladectl check` is who judges.
func loadFleet(dir string) (fleet, error) {
	all := fleet{
		Networks: map[string]fleetNetwork{}, Blades: map[string]fleetBlade{}, Services: map[string]fleetService{},
		Directors: map[string]fleetDirector{}, Rules: map[string]fleetRule{}, Hosts: map[string]fleetRule{},
	}
	files, err := fleetFiles(dir)
	if err != nil {
		return all, fmt.Errorf("load fleet %s: %w", dir, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return all, fmt.Errorf("load fleet: %w", err)
		}
		var one fleet
		if err := yaml.Unmarshal(data, &one); err != nil {
			return all, fmt.Errorf("load fleet: %s: %w", file, err)
		}
		all.Sites = append(all.Sites, one.Sites...)
		all.Expect = append(all.Expect, one.Expect...)
		merge(all.Networks, one.Networks)
		merge(all.Blades, one.Blades)
		merge(all.Services, one.Services)
		merge(all.Directors, one.Directors)
		merge(all.Rules, one.Rules)
		merge(all.Hosts, one.Hosts)
	}
	return all, nil
}

func merge[V any](into, from map[string]V) {
	for name, value := range from {
		into[name] = value
	}
}

// topology derives what a lab of the fleet's first n blades consists of.
func (f fleet) topology(n int) (topology, error) {
	names := sortedKeys(f.Blades)
	if n < 1 || n > len(names) {
		return topology{}, fmt.Errorf("choose blades: %d wanted, the fleet has %d", n, len(names))
	}
	var t topology
	zones, sites := map[string]bool{}, map[string]bool{}
	for _, name := range names[:n] {
		b := f.Blades[name]
		t.Blades = append(t.Blades, blade{name, b.Trunk, b.Management})
		zones[b.Zone], sites[b.Site] = true, true
	}
	vlans := map[int]string{}
	for _, name := range sortedKeys(f.Networks) {
		network := f.Networks[name]
		here := len(network.Sites) == 0 || slices.ContainsFunc(network.Sites, func(s string) bool { return sites[s] })
		if !zones[network.Zone] || !here {
			continue
		}
		if other, ok := vlans[network.VLAN]; ok {
			return topology{}, fmt.Errorf("join trunks: VLAN %d is %s and %s, and all trunks meet on one switch", network.VLAN, other, name)
		}
		vlans[network.VLAN] = name
		if len(network.Routers) > 0 {
			t.Networks = append(t.Networks, f.routed(name, network))
		}
	}
	t.Users, t.Routed = f.users(t)
	return t, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// routed derives the router's side of a network. On an uplink the router speaks OSPF and BGP with whatever director comes,
// since directors may be spawned later: as the directors that the files name want it, else by the defaults here.
func (f fleet) routed(name string, network fleetNetwork) routedNetwork {
	r := routedNetwork{Name: name, VLAN: network.VLAN}
	for _, address := range network.Routers {
		for _, subnet := range network.Subnets {
			if subnet.Contains(address) {
				r.Addresses = append(r.Addresses, netip.PrefixFrom(address, subnet.Bits()))
			}
		}
	}
	if network.Role != "uplink" {
		return r
	}
	r.OSPF = &ospfPeer{Area: "0.0.0.0", Hello: 1, Dead: 4, BFD: true}
	r.BGP = &bgpPeer{AS: 64500, PeerAS: 64512, BFD: true}
	for _, director := range sortedKeys(f.Directors) {
		d := f.Directors[director]
		if d.Eth0.Network != name {
			continue
		}
		if o := d.Announce.OSPF; o != nil {
			r.OSPF = &ospfPeer{Area: or(o.Area, "0.0.0.0"), Hello: seconds(o.Hello, 1), Dead: seconds(o.Dead, 4), BFD: o.BFD}
		}
		if b := d.Announce.BGP; b != nil {
			r.BGP = &bgpPeer{AS: b.PeerAS, PeerAS: b.AS, BFD: b.BFD}
		}
	}
	return r
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

func seconds(text string, fallback int) int {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		return fallback
	}
	return int(d / time.Second)
}

// users derives who lives behind the router: addresses that the files' expectations speak from become the client's, and
// prefixes that rules and services name are routed to it, so that a test can add an address of any of them.
func (f fleet) users(t topology) (addresses []netip.Addr, routed []netip.Prefix) {
	known := func(p netip.Prefix) bool {
		return slices.ContainsFunc(sortedKeys(f.Networks), func(name string) bool {
			return slices.ContainsFunc(f.Networks[name].Subnets, p.Overlaps)
		}) || clientNet4.Overlaps(p) || clientNet6.Overlaps(p)
	}
	add := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			if p := netip.PrefixFrom(a, a.BitLen()); !known(p) {
				addresses, routed = append(addresses, a), append(routed, p)
			}
			return
		}
		if p, err := netip.ParsePrefix(text); err == nil && !known(p) {
			routed = append(routed, p)
		}
	}
	for _, e := range f.Expect {
		add(e.From)
	}
	for _, rules := range []map[string]fleetRule{f.Rules, f.Hosts} {
		for _, name := range sortedKeys(rules) {
			for _, from := range rules[name].From {
				add(from)
			}
		}
	}
	for _, name := range sortedKeys(f.Services) {
		for _, client := range f.Services[name].Clients {
			add(client)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	slices.SortFunc(routed, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(addresses), slices.Compact(routed)
}
