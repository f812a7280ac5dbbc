package policy

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Fleet is what a whole policy says, in typed values with every default filled in. Parse makes it, Check judges it, Derive and
// the filter read it. Slices are sorted by name, lists keep the order of the files only where order means something (VIPs,
// addresses and routers of one entry; alerts and expectations). It is not changed after Parse.
type Fleet struct {
	Zones        []Zone
	Sites        []Site
	Networks     []Network
	Blades       []BladeEntry
	Services     []ServiceEntry
	Directors    []Director
	RealServers  []RealServer
	Rules        []RuleEntry
	Hosts        []RuleEntry // To is empty: the blades' management addresses
	Alerts       []Alert
	Expectations []Expectation

	index   fleetIndex
	sources sources
}

// Zone is an infrastructure that shares nothing with the others.
type Zone struct {
	Name ZoneName
	Pos  Pos
}

// Site is a place with its own backbone router.
type Site struct {
	Name SiteName
	Pos  Pos
}

// Network is one VLAN.
type Network struct {
	Name    NetworkName
	Zone    ZoneName
	Role    NetworkRole
	VLAN    VLANID
	Sites   []SiteName // nil: every site
	Subnets []netip.Prefix
	Routers []netip.Addr
	Pos     Pos

	doc *networkDoc
}

// BladeEntry is one blade as the policy names it.
type BladeEntry struct {
	Name       BladeName
	Site       SiteName
	Zone       ZoneName
	Trunk      string
	Management string // empty: none
	Pos        Pos

	doc *bladeDoc
}

// Mode says what a service wants of its balancing.
type Mode string

// The modes.
const (
	ModeLocality Mode = "locality"
	ModeSurvive  Mode = "survive"
	ModeSpread   Mode = "spread"
)

// Share is a part of a weight in thousandths of a per cent: 1% is 1000.
type Share int

// Size is a number of bytes.
type Size int64

// ServiceEntry is one service.
type ServiceEntry struct {
	Name                       ServiceName
	Zone                       ZoneName
	VIPs                       []netip.Addr
	Ports                      []PortRange
	Clients                    []netip.Prefix // empty: any
	Scheduler                  string
	Mode                       Mode
	Remote                     Share
	Persistence                time.Duration // 0: none
	SlowStart                  time.Duration // 0: none
	Persistence4, Persistence6 int           // lengths of the prefixes that share a real server
	OnePacket                  bool          // of its UDP ports
	Check                      *CheckEntry   // nil: not checked
	Up                         int           // quorum
	Hysteresis                 int
	OnUp                       string // programs, run when the quorum is gained and lost; empty: none
	OnDown                     string
	Sorry                      GuestName // empty: none
	Pos                        Pos

	doc *serviceDoc
}

// CheckEntry is how a service's real servers are checked.
type CheckEntry struct {
	Kind       string // tcp, http, https, smtp, dns, script
	Port       uint16
	Path       string // http, https: path; script: file
	Host       string
	Status     int
	Body       string // http, https
	Name       string // dns
	Type       string // dns
	SetsWeight bool   // script
	Interval   time.Duration
	Timeout    time.Duration
	Rise       int
	Fall       int
	Pos        Pos
}

// Attachment is a guest's interface in a network.
type Attachment struct {
	Network   NetworkName
	Addresses []netip.Addr
	Pos       Pos

	doc *interfaceDoc
}

// Director is one load balancer.
type Director struct {
	Name     GuestName
	Blade    BladeName
	Image    string
	Memory   int64
	CPUs     int
	Drain    bool // announces nothing
	Sync     int  // number that directors which share their connections have in common; 0: shares none
	Eth0     Attachment
	Eth1     Attachment
	OSPF     *OSPF // at most one of OSPF, BGP and VRRP
	BGP      *BGP
	VRRP     *VRRP
	Pos      Pos
	announce Pos

	macs [2]MAC
	doc  *directorDoc
}

// announces reports whether routers learn of the director's VIPs.
func (d *Director) announces() bool { return d.OSPF != nil || d.BGP != nil || d.VRRP != nil }

// Serve is one service that a real server answers for.
type Serve struct {
	Service ServiceName
	Weight  int
	Pos     Pos
}

// VolumeEntry is one volume of a guest.
type VolumeEntry struct {
	Volume
	Pos Pos

	path Pos
}

// RealServer is one node.
type RealServer struct {
	Name       GuestName
	Blade      BladeName
	Driver     Driver
	Image      string
	Memory     int64
	CPUs       int
	PIDs       int           // of a container
	IOWeight   int           // of a container, 100 where nobody says otherwise
	Disk       int64         // bytes that a container's clone may take; 0: as many as there are
	Drain      bool          // takes no new connections
	Spare      bool          // runs while the others have no quorum
	Privileged bool          // its root is the blade's root
	Serves     []Serve       // sorted by service
	Volumes    []VolumeEntry // sorted by name
	Eth0       Attachment
	Eth1       Attachment
	Pos        Pos

	macs [2]MAC // of eth0 and eth1
	doc  *realServerDoc
}

// Selector says who, at one end of a rule. Exactly one of its fields is set.
type Selector struct {
	Any    bool
	Role   Role         // every guest of that role in the zone of the blade that the rule is derived for
	Guest  GuestName    // its addresses on both interfaces
	Prefix netip.Prefix // an address is a prefix of full length
}

// RuleEntry is one rule.
type RuleEntry struct {
	Name  string
	From  []Selector
	To    []Selector
	Allow []PortRange
	Pos   Pos

	from, to []Pos
	complete bool // every list was written
}

// Alert is where alerts are sent.
type Alert struct {
	AlertTarget
	Pos Pos

	doc *alertDoc
}

// Verdict is what happens to a packet.
type Verdict string

// The verdicts.
const (
	Accept Verdict = "accept"
	Drop   Verdict = "drop"
)

// Endpoint is one end of an expectation. Exactly one of Address, Guest and Blade is set.
type Endpoint struct {
	Address netip.Addr
	Guest   GuestName
	Blade   BladeName
}

// TCPFlags is a set of TCP flags in their bits of the header (RFC 9293, section 3.1).
type TCPFlags uint8

// The flags of a TCP header.
const (
	FlagFIN TCPFlags = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
	FlagURG
)

var flagNames = []string{"fin", "syn", "rst", "psh", "ack", "urg"}

// String writes the flags as a policy does: syn,ack.
func (f TCPFlags) String() string {
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Expectation is one test of the policy.
type Expectation struct {
	From       Endpoint
	As         netip.Addr // invalid: From's own
	To         Endpoint
	Protocol   Protocol
	Port       uint16   // 0 for icmp
	SourcePort uint16   // 0: an ephemeral one
	Flags      TCPFlags // 0: the first packet of a new connection
	Verdict    Verdict
	Why        string
	Pos        Pos

	from, to Pos

	doc *expectDoc
}

// String writes the range as a policy does: 443/tcp, 8000-8099/tcp, icmp.
func (r PortRange) String() string {
	switch {
	case r.Protocol == ICMP:
		return string(ICMP)
	case r.First == r.Last:
		return strconv.Itoa(int(r.First)) + "/" + string(r.Protocol)
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last)) + "/" + string(r.Protocol)
}

// String writes the selector as a policy does.
func (s Selector) String() string {
	switch {
	case s.Any:
		return "any"
	case s.Role != "":
		return string(s.Role) + "s"
	case s.Guest != "":
		return string(s.Guest)
	case s.Prefix.IsSingleIP():
		return s.Prefix.Addr().String()
	}
	return s.Prefix.String()
}

// String writes the endpoint as a policy does.
func (e Endpoint) String() string {
	switch {
	case e.Guest != "":
		return string(e.Guest)
	case e.Blade != "":
		return string(e.Blade)
	}
	return e.Address.String()
}
