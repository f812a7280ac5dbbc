package fleet

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Size is how much of everything there is on the blade under test.
type Size struct {
	Services int  // pairs of a VIP and a port, in each family
	Guests   int  // one in 32 is a director, the others are real servers
	IPv4Only bool // VIPs: the policy refuses more than 16 384 pairs in both families together
}

// Guests whose traffic is measured.
const (
	Blade          policy.BladeName = "bench" // the blade under test
	Director       policy.GuestName = "dir-0" // on it
	Server         policy.GuestName = "node-0"
	RemoteDirector policy.GuestName = "dir-remote" // on another blade
	RemoteServer   policy.GuestName = "node-remote"
)

// Networks of the blade.
const (
	Uplink  policy.NetworkName = "up"
	Service policy.NetworkName = "svc"
	Return  policy.NetworkName = "ret"

	UplinkVLAN  = 111
	ServiceVLAN = 120
	ReturnVLAN  = 130
)

// FirstPort is the first of each VIP's ports.
const FirstPort = 8001

// The first VIP of each family; the others follow.
var (
	FirstVIP4 = netip.AddrFrom4([4]byte{10, 200, 0, 1})
	FirstVIP6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 15: 1})
)

// PortsPerVIP is how many services share a VIP.
func (s Size) PortsPerVIP() int {
	if s.Services%4 == 0 {
		return 4
	}
	return 1
}

// VIPs is how many VIPs there are in each family.
func (s Size) VIPs() int { return s.Services / s.PortsPerVIP() }

func (s Size) directors() int { return max(1, s.Guests/32) }
func (s Size) servers() int   { return s.Guests - s.directors() }

// Files writes the policy. Server and RemoteServer serve everything; beside them each service has four of the other real servers.
func Files(s Size) []policy.File {
	var b strings.Builder
	b.WriteString("zones: [pub]\nsites: [here, there]\nnetworks:\n")
	fmt.Fprintf(&b, "  up: {zone: pub, role: uplink, vlan: %d, subnets: [10.1.0.0/16, \"2001:db8:1::/64\"], routers: [10.1.0.1, \"2001:db8:1::1\"]}\n", UplinkVLAN)
	fmt.Fprintf(&b, "  svc: {zone: pub, role: service, vlan: %d, subnets: [10.2.0.0/16, \"2001:db8:2::/64\"]}\n", ServiceVLAN)
	fmt.Fprintf(&b, "  ret: {zone: pub, role: return, vlan: %d, subnets: [10.3.0.0/16, \"2001:db8:3::/64\"], routers: [10.3.0.1, \"2001:db8:3::1\"]}\n", ReturnVLAN)
	fmt.Fprintf(&b, "blades:\n  %s: {site: here, zone: pub, trunk: eno1}\n  other: {site: there, zone: pub, trunk: eno1}\nservices:\n", Blade)
	for i := range s.VIPs() {
		var ports []string
		for p := range s.PortsPerVIP() {
			ports = append(ports, fmt.Sprintf("%d/tcp", FirstPort+p))
		}
		vips := fmt.Sprintf("10.200.%d.%d", (i+1)>>8, (i+1)&255)
		if !s.IPv4Only {
			vips += fmt.Sprintf(", \"2001:db8:f::%x\"", i+1)
		}
		fmt.Fprintf(&b, "  svc-%d: {zone: pub, vips: [%s], ports: [%s], balance: {scheduler: rr, mode: spread}, check: {tcp: {port: %d}}}\n",
			i, vips, strings.Join(ports, ", "), FirstPort)
	}
	b.WriteString("directors:\n")
	for i := range s.directors() {
		b.WriteString(director(policy.GuestName(fmt.Sprintf("dir-%d", i)), Blade, i))
	}
	b.WriteString(director(RemoteDirector, "other", s.directors()))
	b.WriteString("realservers:\n")
	serves := s.serves()
	for i := range s.servers() {
		b.WriteString(server(policy.GuestName(fmt.Sprintf("node-%d", i)), Blade, i, serves[i]))
	}
	b.WriteString(server(RemoteServer, "other", s.servers(), s.all()))
	b.WriteString("rules:\n  admin: {from: [203.0.113.0/28], to: [directors, realservers], allow: [22/tcp, icmp]}\n")
	return []policy.File{{Name: "bench.yaml", Data: []byte(b.String())}}
}

// serves lists each real server's services by number.
func (s Size) serves() [][]int {
	out := make([][]int, s.servers())
	out[0] = s.all()
	others := len(out) - 1
	for i := range s.VIPs() {
		for k := range min(4, others) {
			at := 1 + (i*4+k)%others
			out[at] = append(out[at], i)
		}
	}
	return out
}

func (s Size) all() []int {
	out := make([]int, s.VIPs())
	for i := range out {
		out[i] = i
	}
	return out
}

func director(name policy.GuestName, blade policy.BladeName, i int) string {
	n := i + 2
	return fmt.Sprintf("  %s: {blade: %s, eth0: {network: up, addresses: [10.1.1.%d, \"2001:db8:1::1:%x\"]}, eth1: {network: svc, addresses: [10.2.255.%d, \"2001:db8:2::ff:%x\"]}, announce: {ospf: {area: 0.0.0.0, hello: 1s, dead: 4s, bfd: true}}}\n",
		name, blade, n, n, n, n)
}

func server(name policy.GuestName, blade policy.BladeName, i int, serves []int) string {
	var list []string
	for _, n := range serves {
		list = append(list, fmt.Sprintf("svc-%d: {weight: 1}", n))
	}
	if len(list) == 0 {
		list = []string{"svc-0: {weight: 1}"}
	}
	n := i + 2
	return fmt.Sprintf("  %s: {blade: %s, image: web, serves: {%s}, eth0: {network: ret, addresses: [10.3.%d.%d, \"2001:db8:3::%x\"]}, eth1: {network: svc, addresses: [10.2.%d.%d, \"2001:db8:2::%x\"]}}\n",
		name, blade, strings.Join(list, ", "), n>>8, n&255, n, n>>8, n&255, n)
}

// Derive loads the policy and derives the blade under test.
func Derive(s Size) (policy.Blade, error) {
	f, diagnostics := policy.Load(Files(s))
	for _, d := range diagnostics {
		return policy.Blade{}, fmt.Errorf("load generated policy: %s: %s", d.Pos, d.Message)
	}
	return policy.Derive(f, Blade)
}
