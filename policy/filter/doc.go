// Package filter turns the wanted state of a blade into the rules that hold it: a typed ruleset, its text in nft's language, and
// Judge, a second and independent reading of the policy that says what must happen to a packet and which line decides it.
// It is pure: it never touches a kernel, a file or the network.
//
// Two tables come out of Compile. `bridge bladenet` stands outside every guest and judges what crosses the blade's bridges;
// `inet bladenet_host` shields the blade itself. Chains depend on the names of the policy's rules only: everything else (VIPs,
// guests, services, addresses) is an element of a set or map, so that adding a guest or a VIP changes elements and nothing more.
//
// The order of judgement in `bridge bladenet`:
//
//	prerouting -300   who speaks: MAC, IP, ARP and ND pinned per port; VIP packets are marked untracked (conntrack's hook is at -200)
//	forward 0         who may hear: exact sets for VIPs, connection state and rules for the rest, drop by default
//	input, output     nothing passes between the blade's own stack and a guest's network
//
// A connection that a rule allows begins only within its port's limits (limits.go), and broadcasts have one as well.
//
// A deny chain per reason counts the packet under its reason and under the port, then drops it.
package filter
