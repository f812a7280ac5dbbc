package main

import (
	"fmt"
	"strings"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/fleet"
)

// loadLeast guards a station by the smallest ruleset that lets the same IPv4 requests and answers through and no others: no fragments, no
// TCP flags, no clients told apart, nothing pinned but answers. What it costs is what nftables costs here at the least.
func (s *station) loadLeast() error {
	var vips, in, src []string
	for _, g := range guarded(s.blade) {
		for _, o := range g.Open {
			if g.Port == legOut.from {
				vips = append(vips, o.VIP.String())
				src = append(src, fmt.Sprintf("%q . %s . %s", g.Port, g.MAC, o.VIP))
			}
			for _, n := range o.Ports {
				in = append(in, fmt.Sprintf("%q . %s . 6 . %d", g.Port, o.VIP, n))
			}
		}
	}
	text := fmt.Sprintf(`table bridge least {
	set vips { type ipv4_addr; elements = { %s } }
	set in { type ifname . ipv4_addr . inet_proto . inet_service; elements = { %s } }
	set src { type ifname . ether_addr . ipv4_addr; elements = { %s } }
	chain pre {
		type filter hook prerouting priority -300; policy drop;
		iifname %q ip daddr @vips notrack accept
		iifname %q accept
		iifname . ether saddr . ip saddr @src notrack accept
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
		oifname . ip daddr . meta l4proto . th dport @in accept
		oifname %q accept
	}
}
`, strings.Join(vips, ", "), strings.Join(in, ", "), strings.Join(src, ", "),
		policy.VLANLink(fleet.UplinkVLAN), policy.VLANLink(fleet.UplinkVLAN), policy.VLANLink(fleet.ReturnVLAN))
	if _, err := s.ns.Run(text, "nft", "-f", "-"); err != nil {
		return err
	}
	return s.refuses(legIn, false)
}
