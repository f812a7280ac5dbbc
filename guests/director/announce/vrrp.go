package announce

import (
	"net/netip"
	"strconv"
	"time"
)

// Words of a VIP's file, which keepalived watches: a number other than 0 takes the VIP away from the director.
const (
	mayHave    = "0\n"
	mayNotHave = "1\n"
)

// vrrp has one virtual router for each VIP, so that a VIP moves without the others. Each follows a file in which the controller says
// whether the director may have the VIP (keepalived.conf(5), track_file with weight 0): where it may not, the router is in the fault state,
// which the other director is told at once, and when both are, nobody has the VIP. Advertisements of gratuitous ARP keep a distance, so that
// all VIPs at once stay below what the blade lets a port send to groups.
func (c *config) vrrp(s Spec) {
	v := s.Announce.VRRP
	c.line("# written by bladeguest; changes are lost")
	c.line("global_defs {")
	if s.Hostname != "" {
		c.line("\trouter_id %s", s.Hostname)
	}
	c.line("\tvrrp_version 3")
	c.line("\tvrrp_garp_interval 0.01")
	c.line("\tvrrp_gna_interval 0.01")
	c.line("}")
	for _, ipv6 := range []bool{false, true} {
		for _, vip := range byFamily(s.VIPs, ipv6) {
			c.line("")
			c.line("track_file %s {", vip)
			c.line("\tfile \"${_PWD}/%s\"", vip)
			c.line("\tweight 0")
			c.line("}")
			c.line("vrrp_instance %s {", vip)
			c.line("\tstate BACKUP")
			c.line("\tinterface eth0")
			c.line("\tvirtual_router_id %d", v.Router(vip))
			c.line("\tpriority %d", v.Priority)
			c.line("\tadvert_int %s", hundredths(v.Interval))
			if !ipv6 {
				c.line("\tmcast_src_ip %s", s.Announce.RouterID)
			}
			c.line("\ttrack_file {")
			c.line("\t\t%s", vip)
			c.line("\t}")
			c.line("\tvirtual_ipaddress {")
			c.line("\t\t%s dev eth0", netip.PrefixFrom(vip, vip.BitLen()))
			c.line("\t}")
			c.line("}")
		}
	}
}

// hundredths is a duration as keepalived takes it: seconds with a fraction.
func hundredths(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
