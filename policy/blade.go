package policy

import (
	"net/netip"
	"time"
)

// Blade is the whole wanted state of one blade: plain data, made by Derive, the same bytes for the same fleet whatever the
// order of its files. Every slice is sorted by its element's name or address. Nothing in it is a pointer into a Fleet.
type Blade struct {
	Name       BladeName `json:"name"`
	Site       SiteName  `json:"site"`
	Zone       ZoneName  `json:"zone"`
	Trunk      string    `json:"trunk"`                // NIC that carries every VLAN, tagged
	Management string    `json:"management,omitempty"` // NIC of the blade's own address

	Segments []Segment     `json:"segments"` // networks of the blade's zone that exist at its site
	Guests   []Guest       `json:"guests"`   // guests of this blade
	Peers    []Peer        `json:"peers"`    // every guest interface of the zone, on any blade, this one included
	Services []Service     `json:"services"` // services of the zone
	Rules    []Rule        `json:"rules"`
	Hosts    []Rule        `json:"hosts"`            // what may reach the blade's own management address
	Alerts   []AlertTarget `json:"alerts,omitempty"` // each once

	// Fleet-wide facts that rules need: `any` is every address that is not a guest's or a blade's.
	GuestAddresses []netip.Addr `json:"-"`
}

// Segment is one network on a blade: a VLAN link on the trunk and the bridge that guests' ports join.
type Segment struct {
	Network NetworkName    `json:"network"`
	Role    NetworkRole    `json:"role"`
	VLAN    VLANID         `json:"vlan"`
	Link    string         `json:"link"`   // 802.1Q link, vlanN
	Bridge  string         `json:"bridge"` // brN
	Subnets []netip.Prefix `json:"subnets"`
	Routers []netip.Addr   `json:"routers,omitempty"`
}

// Port is a guest's tap (KVM) or the host end of its veth (LXC), a port of its segment's bridge.
type Port struct {
	Name      string       `json:"name"` // at most 15 bytes, unique on the blade
	Guest     GuestName    `json:"guest"`
	Role      Role         `json:"role"`
	Driver    Driver       `json:"driver"`    // kvm: tap; lxc: veth
	Interface string       `json:"interface"` // eth0 or eth1, inside the guest
	Network   NetworkName  `json:"network"`
	VLAN      VLANID       `json:"vlan"`
	Bridge    string       `json:"bridge"`
	MAC       MAC          `json:"mac"`       // the guest's own, not the tap's
	Addresses []netip.Addr `json:"addresses"` // without the guest's link-local address, which follows from MAC (EUI-64)
}

// Guest is one guest of this blade.
type Guest struct {
	Name   GuestName `json:"name"`
	Role   Role      `json:"role"`
	Driver Driver    `json:"driver"`
	Image  string    `json:"image"`
	Memory int64     `json:"memory"` // bytes
	CPUs   int       `json:"cpus"`
	CID    uint32    `json:"cid,omitempty"`  // vsock context identifier, KVM only
	PIDs   int       `json:"pids,omitempty"` // processes and threads, LXC only
	// IOWeight, LXC only: its part of a busy disk, from 1 to 1000; 0 is the kernel's own, 100.
	IOWeight int `json:"io_weight,omitempty"`
	// Disk, LXC only: bytes that its clone may take; 0: as many as there are.
	Disk int64 `json:"disk,omitempty"`
	// Privileged, LXC only: without a user namespace of its own.
	Privileged bool          `json:"privileged,omitempty"`
	Ports      []Port        `json:"ports"` // eth0, eth1
	Serves     []ServiceName `json:"serves,omitempty"`
	Inside     Inside        `json:"inside"`
	Balancer   *Balancer     `json:"balancer,omitempty"` // directors only
	Drained    bool          `json:"drained,omitempty"`
	Spare      bool          `json:"spare,omitempty"`   // real servers only: runs while the others have no quorum
	Volumes    []Volume      `json:"volumes,omitempty"` // containers only; no path lies in another's
	Pos        Pos           `json:"-"`
}

// Volume is a folder of the blade that a guest has at a path of its own, and that outlives the guest's clone.
type Volume struct {
	Name     VolumeName `json:"name"`
	Path     string     `json:"path"` // absolute and clean, inside the guest
	ReadOnly bool       `json:"read_only,omitempty"`
}

// Inside is what goes inside a guest's network namespace.
type Inside struct {
	Hostname   string      `json:"hostname"`
	Interfaces []Interface `json:"interfaces"`
	VIPs       []VIP       `json:"vips,omitempty"` // /32 and /128 on lo
	// Floating are addresses that a program inside puts on eth0 and takes away again, as /32 and /128: nobody else's business.
	Floating []netip.Addr `json:"floating,omitempty"`
	Routes   []Route      `json:"routes,omitempty"`
	Sysctls  []Sysctl     `json:"sysctls,omitempty"` // in the order in which they are set
}

// Interface is a guest's own view of one of its interfaces.
type Interface struct {
	Name      string         `json:"name"`
	MAC       MAC            `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"` // address with the subnet's length
}

// VIP is a service address on a guest's loopback and the services that stand behind it.
type VIP struct {
	Address  netip.Addr    `json:"address"`
	Services []ServiceName `json:"services"`
}

// Route is one route inside a guest.
type Route struct {
	Destination netip.Prefix `json:"destination"` // 0.0.0.0/0 and ::/0 for default routes
	Via         netip.Addr   `json:"via"`
	Interface   string       `json:"interface"`
}

// Sysctl is a file below /proc/sys and its value.
type Sysctl struct {
	Key   string `json:"key"` // net/ipv4/conf/all/arp_ignore
	Value string `json:"value"`
}

// Peer is one guest interface of the zone, on any blade: who speaks with which address from which MAC.
type Peer struct {
	Guest     GuestName     `json:"guest"`
	Role      Role          `json:"role"`
	Blade     BladeName     `json:"blade"`
	Site      SiteName      `json:"site"`
	Interface string        `json:"interface"`
	Network   NetworkName   `json:"network"`
	MAC       MAC           `json:"mac"`
	Addresses []netip.Addr  `json:"addresses"`
	Serves    []ServiceName `json:"serves,omitempty"` // a sorry server's services included
	Sync      int           `json:"sync,omitempty"`   // a director's eth1 only: the number of those that share their connections
	VRRP      *VRRP         `json:"vrrp,omitempty"`   // a director's eth0 only: it announces by VRRP there
}

// Protocol is an IP protocol that has ports, or ICMP.
type Protocol string

// The protocols a policy can name. ICMP means both families' echo and errors.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp"
)

// PortRange is a protocol and an inclusive range of ports: 443/tcp, 8000-8099/tcp. First and Last are 0 for icmp.
type PortRange struct {
	Protocol Protocol `json:"protocol"`
	First    uint16   `json:"first,omitempty"`
	Last     uint16   `json:"last,omitempty"`
}

// Service is one service as the filter sees it.
type Service struct {
	Name    ServiceName    `json:"name"`
	VIPs    []netip.Addr   `json:"vips"`
	Ports   []PortRange    `json:"ports"`
	Clients []netip.Prefix `json:"clients"`          // empty: any
	Servers []GuestName    `json:"servers"`          // real servers that may answer, a sorry server included
	Checks  []PortRange    `json:"checks,omitempty"` // what directors probe at their servers' eth1; the filter lets it through
	Pos     Pos            `json:"pos"`
}

// Rule allows new connections from one set of addresses to another; what no rule allows is dropped.
type Rule struct {
	Name    string         `json:"name"`
	From    []netip.Prefix `json:"from"` // guests are written as their addresses
	FromAny bool           `json:"from_any,omitempty"`
	To      []netip.Prefix `json:"to"`
	ToAny   bool           `json:"to_any,omitempty"`
	Allow   []PortRange    `json:"allow"`
	Pos     Pos            `json:"pos"`
}

// Balancer is what runs in a director: IPVS services, health checks and announcement.
type Balancer struct {
	Services []VirtualService `json:"services"` // sorted by address, protocol, port: one canonical order
	Checks   []Check          `json:"checks"`
	Announce Announce         `json:"announce"`
	Sysctls  []Sysctl         `json:"sysctls,omitempty"` // net/ipv4/vs/*
	Sync     int              `json:"sync,omitempty"`    // 1 to 255: shares its connections by eth1 with directors of the same number
}

// VirtualService is one IPVS service: one VIP, protocol and port.
type VirtualService struct {
	Service      ServiceName   `json:"service"`
	VIP          netip.Addr    `json:"vip"`
	Protocol     Protocol      `json:"protocol"` // tcp or udp
	Port         uint16        `json:"port"`
	Scheduler    string        `json:"scheduler"`
	Flags        []string      `json:"flags,omitempty"`       // mh-port, mh-fallback, sh-port, sh-fallback
	Persistence  time.Duration `json:"persistence,omitempty"` // 0: none
	Granularity  int           `json:"granularity,omitempty"` // length of the prefix whose clients persist together; 0: each by itself
	OnePacket    bool          `json:"one_packet,omitempty"`  // UDP: nothing is remembered
	Mode         string        `json:"mode"`                  // locality, survive, spread
	Quorum       int           `json:"quorum"`
	Hysteresis   int           `json:"hysteresis,omitempty"`
	SlowStart    time.Duration `json:"slow_start,omitempty"` // that a real server's weight takes to grow when it comes back
	OnUp         string        `json:"on_up,omitempty"`      // program to run when the quorum is gained
	OnDown       string        `json:"on_down,omitempty"`    // and when it is lost
	Destinations []Destination `json:"destinations"`         // sorted by address: one canonical order on every director
}

// Destination is a real server of a virtual service, in the VIP's family, by its eth1 address.
type Destination struct {
	Guest   GuestName  `json:"guest"`
	Site    SiteName   `json:"site"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Weight  int        `json:"weight"`            // as this director wants it while all is well
	Remote  int        `json:"remote,omitempty"`  // weight to use when no local destination is left (locality)
	Check   string     `json:"check,omitempty"`   // Check.ID that must be up; empty: always up
	Sorry   bool       `json:"sorry,omitempty"`   // used only when no other destination is up
	Drained bool       `json:"drained,omitempty"` // takes no new connections, whatever its weight
	Spare   bool       `json:"spare,omitempty"`   // used only while the others have no quorum
}

// Check is one health check of one real server address, shared by every service that names the same one.
type Check struct {
	ID         string        `json:"id"` // kind, address, port and a digest of the rest; stable
	Guest      GuestName     `json:"guest"`
	Kind       string        `json:"kind"` // tcp, http, https, smtp, dns, script
	Address    netip.Addr    `json:"address"`
	Port       uint16        `json:"port"`
	Path       string        `json:"path,omitempty"` // http, https: URL path; script: file
	Host       string        `json:"host,omitempty"`
	Status     int           `json:"status,omitempty"`
	Body       string        `json:"body,omitempty"`        // http, https: text that the page must hold
	Name       string        `json:"name,omitempty"`        // dns: question
	Type       string        `json:"type,omitempty"`        // dns: record type
	SetsWeight bool          `json:"sets_weight,omitempty"` // script: an exit status from 2 on is a weight
	Interval   time.Duration `json:"interval"`
	Timeout    time.Duration `json:"timeout"`
	Rise       int           `json:"rise"`
	Fall       int           `json:"fall"`
}

// Announce says how a director tells its routers of its VIPs. At most one of OSPF, BGP and VRRP is set.
type Announce struct {
	RouterID netip.Addr   `json:"router_id"` // the director's first IPv4 address on eth0
	Routers  []netip.Addr `json:"routers,omitempty"`
	Drained  bool         `json:"drained,omitempty"` // announces no VIP
	OSPF     *OSPF        `json:"ospf,omitempty"`
	BGP      *BGP         `json:"bgp,omitempty"`
	VRRP     *VRRP        `json:"vrrp,omitempty"`
}

// OSPF announces by OSPFv2 (RFC 2328) and OSPFv3 (RFC 5340) on eth0.
type OSPF struct {
	Area  string        `json:"area"` // dotted quad
	Hello time.Duration `json:"hello"`
	Dead  time.Duration `json:"dead"`
	BFD   BFD           `json:"bfd,omitzero"`
}

// BGP announces by BGP-4 (RFC 4271) with each router of the uplink.
type BGP struct {
	AS     uint32 `json:"as"`
	PeerAS uint32 `json:"peer_as"`
	BFD    BFD    `json:"bfd,omitzero"`
}

// VRRP announces by VRRPv3 (RFC 5798) on eth0, with one other director of the same network: one virtual router for each VIP.
type VRRP struct {
	ID       int           `json:"id"`
	Priority int           `json:"priority"` // 1 to 254
	Interval time.Duration `json:"interval"` // whole hundredths of a second
}

// Router is the virtual router identifier of a VIP, which the families have apart: the last byte of its address and ID together, so
// that no VIP's depends on another's. Outside of 1 to 255 it is none.
func (v VRRP) Router(vip netip.Addr) int {
	b := vip.AsSlice()
	return int(b[len(b)-1]) + v.ID
}

// BFD watches a director's routers (RFC 5880). The zero value does not.
type BFD struct {
	Interval   time.Duration `json:"interval"` // whole milliseconds
	Multiplier int           `json:"multiplier"`
}

// Enabled reports whether routers are watched.
func (b BFD) Enabled() bool { return b.Multiplier > 0 }

// Watched is how a's routers are watched.
func (a Announce) Watched() BFD {
	switch {
	case a.OSPF != nil:
		return a.OSPF.BFD
	case a.BGP != nil:
		return a.BGP.BFD
	}
	return BFD{}
}

// AlertTarget is where alerts are sent. One of its fields is set.
type AlertTarget struct {
	Webhook string `json:"webhook,omitempty"` // URL
	Command string `json:"command,omitempty"` // program on the blade
	Mail    *Mail  `json:"mail,omitempty"`
}

// Mail is how alerts are mailed.
type Mail struct {
	Relay        string   `json:"relay"` // host:port
	From         string   `json:"from"`
	To           []string `json:"to"`
	User         string   `json:"user,omitempty"`          // empty: no login
	PasswordFile string   `json:"password_file,omitempty"` // on the blade
}
