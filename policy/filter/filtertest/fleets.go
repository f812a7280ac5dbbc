package filtertest

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// Fleet draws a small fleet as policy files: one zone, two blades, some directors, real servers, services and rules, in every
// mixture that a policy allows.
func Fleet(seed uint64) []policy.File {
	f := fleet{rand: rand.New(rand.NewPCG(seed, 2)), vrrp: seed%3 == 1}
	text := `zones: [z]
sites: [s]
networks:
  up: {zone: z, role: uplink, vlan: 10, subnets: [192.0.2.0/26, "2001:db8:111::/64"], routers: [192.0.2.1, "2001:db8:111::1"]}
  in: {zone: z, role: service, vlan: 20, subnets: [10.12.0.0/22, "2001:db8:120::/64"]}
  back: {zone: z, role: return, vlan: 30, subnets: [198.51.100.0/25, "2001:db8:130::/64"], routers: [198.51.100.1, "2001:db8:130::1"]}
blades:
  b1: {site: s, zone: z, trunk: eno1}
  b2: {site: s, zone: z, trunk: eno1}
`
	return []policy.File{{Name: "fleet.yaml", Data: []byte(text + f.services() + f.guests() + f.rules())}}
}

// Blades derives the blades of the fleet that a seed draws. An error means that the policy refuses what was drawn.
func Blades(seed uint64) ([]policy.Blade, error) {
	f, diagnostics := policy.Load(Fleet(seed))
	if diagnostics.HasErrors() {
		return nil, fmt.Errorf("fleet %d: %s", seed, diagnostics)
	}
	var out []policy.Blade
	for _, entry := range f.Blades {
		b, err := policy.Derive(f, entry.Name)
		if err != nil {
			return nil, fmt.Errorf("fleet %d: %w", seed, err)
		}
		out = append(out, b)
	}
	return out, nil
}

type fleet struct {
	rand      *rand.Rand
	names     []string // services
	directors int
	servers   int
	vrrp      bool // two directors announce by it, and the VIPs lie in the uplink
}

func (f *fleet) one(n int) bool { return f.rand.IntN(n) == 0 }

// some picks at least one of a list, each with even chance.
func (f *fleet) some(list ...string) string {
	out := []string{pick(f.rand, list)}
	for _, s := range list {
		if f.one(2) && s != out[0] {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}

func (f *fleet) services() string {
	b := "services:\n"
	for i := range 1 + f.rand.IntN(5) {
		name := fmt.Sprintf("service-%d", i)
		f.names = append(f.names, name)
		vips := f.vips(10 + i)
		ports := f.some("80/tcp", "443/tcp", "53/udp", "53/tcp", "8000-8009/tcp", "5060-5062/udp")
		if i > 0 && f.one(3) {
			// The VIPs of the service before, on ports that it does not have.
			vips, ports = f.vips(9+i), fmt.Sprintf("%d/tcp, %d/udp", 9000+i, 9100+i)
		}
		if f.one(4) {
			vips = vips[:strings.Index(vips, ",")]
		}
		b += fmt.Sprintf("  %s: {zone: z, vips: [%s], ports: [%s]", name, vips, ports)
		if f.one(2) {
			b += fmt.Sprintf(", clients: [%s]", f.some("198.18.0.0/15", "203.0.113.128/25", "203.0.113.192/26", "198.51.100.0/24", `"2001:db8:c::/48"`, `"2001:db8:130::/64"`))
		}
		if f.one(2) {
			b += ", check: {tcp: {port: 80}}"
		}
		b += "}\n"
	}
	return b
}

func (f *fleet) vips(host int) string {
	if f.vrrp {
		return fmt.Sprintf(`192.0.2.%d, "2001:db8:111::%d"`, host, host)
	}
	return fmt.Sprintf(`203.0.113.%d, "2001:db8:5::%d"`, host, host)
}

func (f *fleet) guests() string {
	announce := []string{
		"", ", announce: {ospf: {area: 0.0.0.0, hello: 1s, dead: 4s, bfd: true}}", ", announce: {ospf: {area: 0.0.0.0, hello: 1s, dead: 4s}}",
		", announce: {bgp: {as: 64512, peer-as: 64500}}", ", announce: {bgp: {as: 64512, peer-as: 64500, bfd: true}}",
	}
	sync := []string{"", ", sync: 1", ", sync: 1", ", sync: 2"}
	f.directors, f.servers = 1+f.rand.IntN(3), 1+f.rand.IntN(5)
	b := "directors:\n"
	for i := range f.directors {
		if f.vrrp {
			announce = []string{", announce: none"}
		}
		if f.vrrp && i < 2 {
			announce = []string{fmt.Sprintf(", announce: {vrrp: {id: 40, priority: %d}}", 100+i)}
		}
		b += fmt.Sprintf(
			"  d%d: {blade: b%d, eth0: {network: up, addresses: [%s]}, eth1: {network: in, addresses: [%s]}%s%s}\n",
			i, 1+f.rand.IntN(2), pair("192.0.2", "111", 2+i, false), pair("10.12.0", "120", 2+i, false), pick(f.rand, announce), pick(f.rand, sync),
		)
	}
	b += "realservers:\n"
	for i := range f.servers {
		only4, serves := i > 0 && f.one(4), f.some(f.names...)
		if i == 0 {
			serves = strings.Join(f.names, ", ") // a VIP without a server of its family is refused
		}
		b += fmt.Sprintf(
			"  r%d: {blade: b%d, image: web, serves: {%s: {}}, eth0: {network: back, addresses: [%s]}, eth1: {network: in, addresses: [%s]}}\n",
			i, 1+f.rand.IntN(2), strings.ReplaceAll(serves, ", ", ": {}, "), pair("198.51.100", "130", 11+i, only4), pair("10.12.1", "120", 11+i, only4),
		)
	}
	return b
}

// pair is an address of each family, or only the first.
func pair(v4, v6 string, host int, only4 bool) string {
	if only4 {
		return fmt.Sprintf("%s.%d", v4, host)
	}
	return fmt.Sprintf(`%s.%d, "2001:db8:%s::%d"`, v4, host, v6, host)
}

func (f *fleet) rules() string {
	ends := []string{"directors", "realservers", "d0", "r0", "203.0.113.240/28", `"2001:db8:ad::/64"`, "198.18.0.0/16", "203.0.113.10", `"2001:db8:5::10"`, "198.51.100.0/28"}
	b := "rules:\n"
	n := f.rand.IntN(5)
	for i := range n {
		from, to := f.some(ends...), f.some(ends...)
		switch f.rand.IntN(4) {
		case 0:
			from = "any"
		case 1:
			to = "any"
		}
		b += fmt.Sprintf("  rule-%d: {from: [%s], to: [%s], allow: [%s]}\n", i, from, to, f.some("22/tcp", "icmp", "161/udp", "53/udp", "80/tcp", "8000-8009/tcp", "443/tcp"))
	}
	if n == 0 {
		return ""
	}
	return b
}
