package filter

// NamedPorts is the set of every port that the policy names, in the bridge table. A port that leaves it takes its counters along.
const NamedPorts = "named"

// Sets of the bridge table, by what they say. Kinds end in 4 or 6 when each family has its own.
const (
	setBridges    = "bridges"    // our bridges
	setLinks      = "links"      // VLAN links: the trunk's side of our bridges
	setNamed      = NamedPorts   // every port of our bridges that the policy names
	setPorts      = "ports"      // guests' ports
	setRoles      = "roles"      // map: which guards a port's frames pass
	setMACs       = "macs"       // port and the MAC it speaks with
	setDirectors  = "directors"  // where directors speak on the service networks, a port or the VLAN link, and their MACs
	setLocalMACs  = "local-macs" // MACs of this blade's guests: nobody on the VLAN has them
	setRALinks    = "ra-links"   // VLAN links behind which a router may advertise itself
	setOSPF       = "ospf"       // ports of directors that announce by OSPF
	setBFD        = "bfd"        // ports of directors that watch their routers by BFD
	setSync       = "sync"       // port or link, director's address there, port or link that may hear of its connections
	setNDTargets  = "nd-own"     // port and the addresses it may advertise
	setNDOptions  = "nd-option"  // port and the link-layer options it may send
	setNDNetworks = "nd-net"     // port or link and the addresses of its network
	setNDVIPs     = "nd-vips"    // VIPs, as targets
	setNDLocal    = "nd-local"   // link and the addresses of this blade's guests on its network, as targets

	kindOwn       = "own"          // port, MAC, address: who may speak as whom, and who hears it
	kindNet       = "net"          // port or link and its network's addresses
	kindGuests    = "guests"       // every guest's and blade's address in the fleet
	kindLocal     = "local"        // link and the addresses of this blade's guests on its network
	kindVIPs      = "vips"         // the zone's VIPs
	kindVIPSpeak  = "vip-speak"    // real server's port, MAC, VIP
	kindVIPLink   = "vip-link"     // links on which VIP packets arrive, VIP
	kindHop       = "dr-hop"       // director's port and MAC, real server's MAC, VIP
	kindServices  = "services"     // VIP, protocol, port
	kindIn        = "vip-in"       // director's port, VIP, protocol, port of services that anybody may use
	kindInClients = "vip-in-some"  // same, of services with clients
	kindClients   = "clients"      // client, VIP, protocol, port
	kindServer    = "vip-server"   // real server's port, VIP, protocol, port
	kindOut       = "vip-out"      // real server's port, VIP, protocol, port it answers from
	kindAtDir     = "vip-at-dir"   // director's port, VIP
	kindAtServer  = "vip-at-rs"    // real server's port, VIP
	kindProber    = "probers"      // director's eth0 and its own addresses there: its probes of VIPs are answered to them
	kindQuote     = "quote"        // VIP, VIP, protocol, port: what an ICMP error may quote
	kindFragDir   = "frag-dir"     // director's port and VIP with UDP
	kindFragRS    = "frag-rs"      // real server's port and VIP with UDP
	kindFragOut   = "frag-out"     // real server's port and VIP with UDP that it serves
	kindFragVIP   = "frag-vips"    // VIPs with UDP
	kindDerived   = "derived"      // source, destination, protocol, port: checks, BGP, BFD
	kindNeighbour = "ospf-routers" // director's port and its routers
	kindRouters   = "routers"      // link and the routers behind it
)

// layout is every set of the bridge table, empty, but for those of rules.
func layout() []Set {
	sets := []Set{
		{Name: setBridges, Key: []Field{InBridge}},
		{Name: setLinks, Key: []Field{InPort}},
		{Name: setNamed, Key: []Field{InPort}},
		{Name: setPorts, Key: []Field{InPort}},
		{Name: setRoles, Key: []Field{InPort}, Map: true},
		{Name: setMACs, Key: []Field{InPort, EtherSource}},
		{Name: setDirectors, Key: []Field{InPort, EtherSource}},
		{Name: setLocalMACs, Key: []Field{EtherSource}},
		{Name: setRALinks, Key: []Field{InPort}},
		{Name: setOSPF, Key: []Field{InPort}},
		{Name: setBFD, Key: []Field{InPort}},
		{Name: setSync, Key: []Field{InPort, IPv4Source, OutPort}},
		{Name: setNDTargets, Key: []Field{InPort, NDTarget}},
		{Name: setNDOptions, Key: []Field{InPort, NDOption}},
		{Name: setNDNetworks, Key: []Field{InPort, NDTarget}, Interval: true},
		{Name: setNDVIPs, Key: []Field{NDTarget}},
		{Name: setNDLocal, Key: []Field{InPort, NDTarget}},
	}
	for _, f := range families() {
		sets = append(sets, f.layout()...)
	}
	sets = append(sets, pairLayout()...)
	return sets
}

func (f family) layout() []Set {
	service := []Field{f.dst, f.proto, DestinationPort}
	atPort := []Field{OutPort, f.dst, f.proto, DestinationPort}
	return []Set{
		{Name: f.set(kindOwn), Key: []Field{InPort, EtherSource, f.src}},
		{Name: f.set(kindNet), Key: []Field{InPort, f.src}, Interval: true},
		{Name: f.set(kindGuests), Key: []Field{f.src}},
		{Name: f.set(kindLocal), Key: []Field{InPort, f.src}},
		{Name: f.set(kindVIPs), Key: []Field{f.dst}},
		{Name: f.set(kindVIPSpeak), Key: []Field{InPort, EtherSource, f.src}},
		{Name: f.set(kindVIPLink), Key: []Field{InPort, f.dst}},
		{Name: f.set(kindHop), Key: []Field{InPort, EtherSource, EtherDestination, f.dst}},
		{Name: f.set(kindServices), Key: service},
		{Name: f.set(kindIn), Key: atPort},
		{Name: f.set(kindInClients), Key: atPort},
		{Name: f.set(kindClients), Key: append([]Field{f.src}, service...), Interval: true},
		{Name: f.set(kindServer), Key: atPort},
		{Name: f.set(kindOut), Key: []Field{InPort, f.src, f.proto, SourcePort}},
		{Name: f.set(kindAtDir), Key: []Field{OutPort, f.dst}},
		{Name: f.set(kindAtServer), Key: []Field{OutPort, f.dst}},
		{Name: f.set(kindProber), Key: []Field{OutPort, f.dst}},
		{Name: f.set(kindQuote), Key: f.quote},
		{Name: f.set(kindFragDir), Key: []Field{OutPort, f.dst}},
		{Name: f.set(kindFragRS), Key: []Field{OutPort, f.dst}},
		{Name: f.set(kindFragOut), Key: []Field{InPort, f.src}},
		{Name: f.set(kindFragVIP), Key: []Field{f.dst}},
		{Name: f.set(kindDerived), Key: append([]Field{f.src}, service...)},
		{Name: f.set(kindNeighbour), Key: []Field{InPort, f.src}},
		{Name: f.set(kindRouters), Key: []Field{InPort, f.src}},
	}
}
