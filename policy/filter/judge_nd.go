package filter

import "slices"

// guardICMPv6 judges neighbour discovery and multicast listeners.
func (j judgement) guardICMPv6() (Verdict, bool) {
	ip := j.p.IP
	switch ip.Type {
	case mldQuery, mldReport, mldDone, mldReportV2:
		return drop(Multicast, "no multicast is snooped"), true
	case ndRouterAsk, ndRedirect:
		return drop(BadND, "routes are configured"), true
	case ndRouter:
		if j.in.guest() || !slices.ContainsFunc(j.in.segment.Routers, isIPv6) {
			return drop(RouterAdvert, "routers are where the policy says"), true
		}
	case ndSolicit, ndAdvertise:
	default:
		return Verdict{}, false
	}
	switch {
	case ip.Piece != Whole || ip.HopLimit != 255 || ip.Code != 0:
		return drop(BadND, "neighbours speak unfragmented and from this link"), true
	case ip.Type == ndRouter && !ip.Source.IsLinkLocalUnicast():
		return drop(RouterAdvert, "a router advertises itself from its link-local address"), true
	case ip.Type == ndRouter:
		return Verdict{}, false
	case j.local(ip.Source):
		return drop(SpoofedND, "a guest of this blade speaks by its own port"), true
	case j.claimsND() || j.asksND():
		return Verdict{}, false
	case j.isVIP(ip.Neighbour.Target):
		return drop(VIPND, "nobody speaks neighbour discovery for a VIP"), true
	case (ip.Type == ndAdvertise || ip.Source.IsUnspecified()) && j.local(ip.Neighbour.Target):
		return drop(SpoofedND, "a guest of this blade speaks by its own port"), true
	case !j.in.inNetwork(ip.Neighbour.Target):
		return drop(BadND, "neighbour discovery stays among a network's own addresses"), true
	case j.in.guest():
		return j.guardNeighbour()
	}
	return Verdict{}, false
}

// guardNeighbour pins a guest's neighbour messages to its addresses and its MAC.
func (j judgement) guardNeighbour() (Verdict, bool) {
	ip, n := j.p.IP, j.p.IP.Neighbour
	pinned := drop(SpoofedND, "a port speaks neighbour discovery for its own addresses")
	if ip.Type == ndSolicit && ip.Source.IsUnspecified() {
		bare := len(n.Options) == 0
		nonce := len(n.Options) == 1 && n.Options[0].Type == optionNonce>>8
		return pinned, !j.in.owns(n.Target) || !bare && !nonce
	}
	switch {
	case !j.in.owns(ip.Source), ip.Type == ndAdvertise && !j.in.owns(n.Target):
		return pinned, true
	case len(n.Options) == 0:
		return Verdict{}, false
	case len(n.Options) > 1:
		return drop(BadND, "at most one option"), true
	}
	o := n.Options[0]
	return pinned, o.Type != 1 && o.Type != 2 || o.Value != j.in.port.MAC
}
