//go:build lab

package lab

import (
	"strings"
	"time"
)

// announcerScript makes a director of namespaces: on the uplink's VLAN, with a VIP in each family that OSPF announces and one
// that BGP announces.
const announcerScript = `
mkdir -p /etc/frr/dir /var/run/frr/dir
cat >/etc/frr/dir/zebra.conf <<END
hostname dir
END
cat >/etc/frr/dir/ospfd.conf <<END
interface eth0
 ip ospf area 0.0.0.0
 ip ospf hello-interval 1
 ip ospf dead-interval 4
 ip ospf priority 0
 ip ospf bfd
ip prefix-list vip permit 203.0.113.10/32
route-map vip permit 10
 match ip address prefix-list vip
router ospf
 ospf router-id 192.0.2.2
 redistribute connected route-map vip
END
cat >/etc/frr/dir/ospf6d.conf <<END
interface eth0
 ipv6 ospf6 area 0.0.0.0
 ipv6 ospf6 hello-interval 1
 ipv6 ospf6 dead-interval 4
 ipv6 ospf6 priority 0
 ipv6 ospf6 bfd
ipv6 prefix-list vip permit 2001:db8:5::10/128
route-map vip permit 10
 match ipv6 address prefix-list vip
router ospf6
 ospf6 router-id 192.0.2.2
 redistribute connected route-map vip
END
cat >/etc/frr/dir/bgpd.conf <<END
router bgp 64512
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 192.0.2.1 remote-as 64500
 neighbor 192.0.2.1 timers connect 1
 neighbor 192.0.2.1 bfd
 neighbor 2001:db8:111::1 remote-as 64500
 neighbor 2001:db8:111::1 timers connect 1
 address-family ipv4 unicast
  network 203.0.113.11/32
  neighbor 192.0.2.1 activate
 address-family ipv6 unicast
  network 2001:db8:5::11/128
  neighbor 2001:db8:111::1 activate
END
echo bfd >/etc/frr/dir/bfdd.conf
chown -R frr:frr /etc/frr/dir /var/run/frr
ip netns add dir
ip link add link eno1 name eth0 netns dir type vlan id 111
ip -n dir -batch - <<END
link set lo up
link set eth0 up
addr add 192.0.2.2/28 dev eth0
addr add 2001:db8:111::2/64 dev eth0 nodad
addr add 203.0.113.10/32 dev lo
addr add 203.0.113.11/32 dev lo
addr add 2001:db8:5::10/128 dev lo nodad
addr add 2001:db8:5::11/128 dev lo nodad
route add default via 192.0.2.1
route add default via 2001:db8:111::1
END
for daemon in zebra bfdd ospfd ospf6d bgpd; do
	ip netns exec dir /usr/lib/frr/$daemon -d -N dir -f /etc/frr/dir/$daemon.conf
done
`

// testAnnouncements lets a director announce by OSPF and by BGP, in both families, and looks for what the router learns.
func testAnnouncements(c command, name string) {
	c.must("exec", "--name", name, "--", "sh", "-ec", announcerScript)
	for vip, protocol := range map[string]string{
		"203.0.113.10": "proto ospf", "2001:db8:5::10": "proto ospf", "203.0.113.11": "proto bgp", "2001:db8:5::11": "proto bgp",
	} {
		family := "-4"
		if strings.Contains(vip, ":") {
			family = "-6"
		}
		begin := time.Now()
		for {
			r := c.run("", "exec", "--name", name, "--in", "router", "--", "ip", family, "route", "show", vip)
			if strings.Contains(r.Stdout, protocol) {
				c.t.Logf("%s learned, %v later", vip, time.Since(begin).Round(100*time.Millisecond))
				break
			}
			if time.Since(begin) > 90*time.Second {
				c.t.Fatalf("no route to %s: %+v\n%s", vip, r, c.must("exec", "--name", name, "--", "sh", "-c", "tail -n 30 /var/log/frr-*; ip -n router route; ip -n router -6 route"))
			}
			time.Sleep(200 * time.Millisecond)
		}
		c.must("exec", "--name", name, "--in", "client", "--", "ping", "-c", "1", "-W", "5", vip)
	}
	peers := c.must("exec", "--name", name, "--in", "router", "--", "vtysh", "-N", "router", "-c", "show bfd peers brief")
	if !strings.Contains(peers, "up") {
		c.t.Errorf("BFD has no peer that is up:\n%s", peers)
	}
}
