package bridges

import (
	"fmt"
	"io"
	"strings"
)

// Render writes the links of a Spec as lines of ip(8) and bridge(8) that would make them by hand, in the order in which they are made, ports at last. It is
// for people to read and compare: the agent itself starts no process. MTU, which follows the trunk's, and marks are left out.
func Render(w io.Writer, s Spec) error {
	var b strings.Builder
	for _, br := range s.Bridges {
		fmt.Fprintf(&b, "ip link add %s address %s type bridge stp_state 0 forward_delay 0 mcast_snooping 0 nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0\n", br.Name, br.MAC)
		quiet(&b, br.Name)
		fmt.Fprintf(&b, "ip link set %s up\n", br.Name)
	}
	for _, v := range s.VLANs {
		fmt.Fprintf(&b, "ip link add link %s name %s type vlan id %d\n", s.Trunk, v.Name, v.ID)
		quiet(&b, v.Name)
		fmt.Fprintf(&b, "ip link set %s master %s up\n", v.Name, v.Bridge)
	}
	for _, guest := range s.Namespaces {
		fmt.Fprintf(&b, "ip netns add %s\n", guest)
	}
	for _, p := range s.Ports {
		if p.Kind == KindTap {
			fmt.Fprintf(&b, "ip tuntap add %s mode tap vnet_hdr\nip link set %s address %s\n", p.Name, p.Name, p.MAC)
		} else {
			fmt.Fprintf(&b, "ip link add %s address %s type veth peer name %s address %s netns %s\n", p.Name, p.MAC, p.Interface, p.GuestMAC, p.Guest)
		}
		quiet(&b, p.Name)
	}
	if len(s.Ports) > 0 {
		fmt.Fprintln(&b, "# the filter comes first")
	}
	for _, p := range s.Ports {
		fmt.Fprintf(&b, "ip link set %s master %s\nip link set %s type bridge_slave learning off flood off\n", p.Name, p.Bridge, p.Name)
		fmt.Fprintf(&b, "bridge fdb replace %s dev %s master static sticky\nip link set %s up\n", p.GuestMAC, p.Name, p.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func quiet(b *strings.Builder, link string) {
	// A slash keeps the dots of a port's name apart from those of the key.
	fmt.Fprintf(b, "sysctl -w net/ipv6/conf/%s/disable_ipv6=1\nip link set %s addrgenmode none\n", link, link)
}
