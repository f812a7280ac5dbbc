package hostagent

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/bladenet/bladenet/policy/filter"
)

// IP protocol numbers (IANA) of packets that have ports or types.
const (
	protoICMP, protoTCP, protoUDP, protoICMPv6 = 1, 6, 17, 58
)

// describePacket says in one line what a packet is.
func describePacket(p filter.Packet) string {
	var words []string
	switch {
	case p.ARP != nil && p.ARP.Operation == 1:
		words = append(words, fmt.Sprintf("arp: %s asks for %s", p.ARP.Sender, p.ARP.Target))
	case p.ARP != nil:
		words = append(words, fmt.Sprintf("arp: %s is at %s, to %s", p.ARP.Sender, p.ARP.SenderMAC, p.ARP.Target))
	case p.IP != nil:
		words = append(words, describeIP(*p.IP))
	default:
		words = append(words, fmt.Sprintf("%s -> %s type 0x%04x", p.Source, p.Destination, p.EtherType))
	}
	if p.Tagged {
		words = append(words, "tagged")
	}
	return strings.Join(words, " ")
}

func describeIP(ip filter.IP) string {
	from, to, what := ip.Source.String(), ip.Destination.String(), fmt.Sprintf("protocol %d", ip.Protocol)
	switch ip.Protocol {
	case protoTCP, protoUDP:
		what = "udp"
		if ip.Protocol == protoTCP {
			what = strings.TrimSpace("tcp " + ip.Flags.String())
		}
		if ip.Piece != filter.LaterFragment {
			from = netip.AddrPortFrom(ip.Source, ip.SourcePort).String()
			to = netip.AddrPortFrom(ip.Destination, ip.DestinationPort).String()
		}
	case protoICMP, protoICMPv6:
		what = fmt.Sprintf("icmp type %d code %d", ip.Type, ip.Code)
	}
	if ip.Piece != filter.Whole {
		what += " fragment"
	}
	return from + " -> " + to + " " + what
}
