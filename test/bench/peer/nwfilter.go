package peer

import (
	"fmt"
	"net/netip"
	"strings"
)

// NWFilter writes what libvirt 9.0.0 puts into the nat table of ebtables for ports with its filter clean-traffic, as seen with
// ebtables-save after it had started a domain: who may speak from a port, and nothing about services.
func NWFilter(guests []Guarded) string {
	var chains, dispatch, rules strings.Builder
	for _, g := range guests {
		p := g.Port
		for _, c := range []string{"I-%s-mac", "I-%s-ipv4-ip", "I-%s-arp-mac", "I-%s-arp-ip", "I-%s-rarp", "O-%s-ipv4", "O-%s-rarp", "libvirt-I-%s", "libvirt-O-%s"} {
			fmt.Fprintf(&chains, ":"+c+" ACCEPT\n", p)
		}
		fmt.Fprintf(&dispatch, "-A PREROUTING -i %s -j libvirt-I-%s\n-A POSTROUTING -o %s -j libvirt-O-%s\n", p, p, p, p)
		for _, r := range nwfilterRules(g) {
			fmt.Fprintf(&rules, "-A %s\n", r)
		}
	}
	return "*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n" + chains.String() + dispatch.String() + rules.String()
}

func nwfilterRules(g Guarded) []string {
	var addresses []netip.Addr
	for _, a := range g.Own {
		if a.Is4() {
			addresses = append(addresses, a)
		}
	}
	for _, o := range g.Open {
		addresses = append(addresses, o.VIP)
	}
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	p, m := g.Port, g.MAC
	reverse := fmt.Sprintf("-d Broadcast --arp-op Request_Reverse --arp-ip-src 0.0.0.0 --arp-ip-dst 0.0.0.0 --arp-mac-src %s --arp-mac-dst %s -j ACCEPT", m, m)
	for _, a := range addresses {
		add("I-%s-arp-ip -p ARP --arp-ip-src %s -j RETURN", p, a)
	}
	add("I-%s-arp-ip -j DROP", p)
	add("I-%s-arp-mac -p ARP --arp-mac-src %s -j RETURN", p, m)
	add("I-%s-arp-mac -j DROP", p)
	add("I-%s-ipv4-ip -p IPv4 --ip-src 0.0.0.0 --ip-proto udp -j RETURN", p)
	for _, a := range addresses {
		add("I-%s-ipv4-ip -p IPv4 --ip-src %s -j RETURN", p, a)
	}
	add("I-%s-ipv4-ip -j DROP", p)
	add("I-%s-mac -s %s -j RETURN", p, m)
	add("I-%s-mac -j DROP", p)
	add("I-%s-rarp -p RARP -s %s %s", p, m, reverse)
	add("I-%s-rarp -j DROP", p)
	add("O-%s-ipv4 -j ACCEPT", p)
	add("O-%s-rarp -p RARP %s", p, reverse)
	add("O-%s-rarp -j DROP", p)
	add("libvirt-I-%s -j I-%s-mac", p, p)
	add("libvirt-I-%s -p IPv4 -j I-%s-ipv4-ip", p, p)
	add("libvirt-I-%s -p IPv4 -j ACCEPT", p)
	add("libvirt-I-%s -p ARP -j I-%s-arp-mac", p, p)
	add("libvirt-I-%s -p ARP -j I-%s-arp-ip", p, p)
	add("libvirt-I-%s -p ARP -j ACCEPT", p)
	add("libvirt-I-%s -p RARP -j I-%s-rarp", p, p)
	add("libvirt-I-%s -p 0x835 -j ACCEPT", p)
	add("libvirt-I-%s -j DROP", p)
	add("libvirt-O-%s -p IPv4 -j O-%s-ipv4", p, p)
	add("libvirt-O-%s -p ARP -j ACCEPT", p)
	add("libvirt-O-%s -p RARP -j O-%s-rarp", p, p)
	add("libvirt-O-%s -j DROP", p)
	return out
}
