package policy

import (
	"strconv"
	"strings"
)

// InitFleet writes a first policy for a machine: one zone, one site, three networks and this blade; a service, a director and a
// real server are there as comments. nics are the machine's NICs, the one for the trunk first, then the one that has its own
// address; hostname is cut to what a blade may be called. Addresses are documentation ranges (RFC 5737, RFC 3849) and
// private ones: they load, and are there to be replaced.
func InitFleet(nics []string, hostname string) File {
	trunk, management, found := "eno1", "", "none was found"
	if len(nics) > 0 {
		trunk, found = nics[0], strings.Join(nics, ", ")
	}
	if len(nics) > 1 {
		management = ", management: " + nicText(nics[1])
	}
	text := strings.NewReplacer(
		"BLADE", plainText(bladeLabel(hostname)), "TRUNK", nicText(trunk), "MANAGEMENT", management, "NICS", strings.Map(visible, found),
	).Replace(firstFleet)
	return File{Name: "fleet.yaml", Data: []byte(text)}
}

// nicText writes a NIC's name, in quotes unless it is made of letters, digits, dots, hyphens and underscores.
func nicText(name string) string {
	ok := name != ""
	for i := 0; i < len(name); i++ {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && (c == '.' || c == '-' || c == '_'))
	}
	if !ok {
		return strconv.Quote(name)
	}
	return plainText(name)
}

// bladeLabel makes an RFC 1123 label of a host name: its first label in lower case, hyphens for what is not allowed.
func bladeLabel(hostname string) string {
	host, _, _ := strings.Cut(strings.ToLower(hostname), ".")
	label := []byte(host)
	for i, c := range label {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			label[i] = '-'
		}
	}
	text := strings.Trim(string(label[:min(len(label), 63)]), "-")
	if text == "" {
		return "blade-1"
	}
	return text
}

const firstFleet = `# A first policy. The same files lie on every blade; each agent derives its own part.
#
#   bladectl check     shows every mistake, with its place
#   bladectl plan      shows what would change on this blade
#   bladectl apply     makes it so
#
# Every address here is an example: replace it. Lines without a blank behind their # are policy to be switched on.

# A zone is an infrastructure that shares nothing with another zone. A site has a backbone router of its own.
zones: [public]
sites: [main]

networks:
  # uplink: eth0 of directors, towards the router. Requests arrive here; VIPs are announced here.
  uplink: {zone: public, role: uplink, vlan: 111, subnets: [192.0.2.0/28, "2001:db8:111::/64"], routers: [192.0.2.1, "2001:db8:111::1"]}
  # service: eth1 of directors and of real servers, on every site.
  service: {zone: public, role: service, vlan: 120, subnets: [10.12.0.0/22, "2001:db8:120::/64"]}
  # return: eth0 of real servers. Answers leave here straight to the user.
  return: {zone: public, role: return, vlan: 130, subnets: [198.51.100.0/25, "2001:db8:130::/64"], routers: [198.51.100.1, "2001:db8:130::1"]}

blades:
  # trunk: the NIC that carries every VLAN, tagged. management: the one with the blade's own address, unknown to every guest.
  # NICs of this machine: NICS
  BLADE: {site: main, zone: public, trunk: TRUNKMANAGEMENT}

# What users reach. Which real servers belong to a service is said by the real servers.
#services:
#  www:
#    zone: public
#    vips: [203.0.113.10, "2001:db8:5::10"]
#    ports: [80/tcp, 443/tcp]
#    check: {http: {port: 80, path: /health}}

# Directors are KVM guests: they balance every service of their zone and announce its VIPs to the uplink's routers.
#directors:
#  dir-1: {blade: BLADE, eth0: {network: uplink, addresses: [192.0.2.2, "2001:db8:111::2"]}, eth1: {network: service, addresses: [10.12.0.2, "2001:db8:120::2"]}, announce: {ospf: {area: 0.0.0.0, hello: 1s, dead: 4s}}}

# Real servers are LXC guests. Later ones: bladectl spawn realserver www-2 --service www
#realservers:
#  www-1: {blade: BLADE, image: web, serves: {www: {}}, eth0: {network: return, addresses: [198.51.100.11, "2001:db8:130::11"]}, eth1: {network: service, addresses: [10.12.1.11, "2001:db8:120::11"]}}

# Everything that is not VIP traffic is dropped unless a rule allows it. Health checks, routing, ARP and neighbour discovery
# are derived, never written.
rules:
  admin: {from: [203.0.113.240/28], to: [directors, realservers], allow: [22/tcp, icmp]}

hosts:
  # The blades' own management address.
  management: {from: [203.0.113.192/28], allow: [22/tcp, icmp]}
`
