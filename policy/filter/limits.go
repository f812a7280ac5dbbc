package filter

import "slices"

// Limits on what one guest may take of what all share. They bound an attack, not a service: ordinary use stays far below.
var (
	// stormLimit bounds what a guest's port sends to many at once: ARP, neighbour discovery, routing protocols. A director that asks for
	// five hundred real servers at once is within it.
	stormLimit = Limit{PerSecond: 250, Burst: 500}

	// newLimit bounds the connections that a port opens, and those that are opened to it. A closed connection stays in conntrack's
	// table for two minutes (nf_conntrack_tcp_timeout_time_wait), so that it also bounds those.
	newLimit = Limit{PerSecond: 100, Burst: 500}

	// checkLimit stands in newLimit's place for what a director opens without a rule, by the policy alone: its health checks, one
	// connection for each real server, port and interval, and its routing protocols. They have sets of their own, at the real server too: who
	// floods a port that a rule opens must not make a server look dead.
	checkLimit = Limit{PerSecond: 1000, Burst: 2000}
)

// openLimit bounds the open connections from a port, and those to it. With newLimit a port takes at most 17 000 entries each way; the
// table of a blade with more than 4 GiB holds 262 144. The kernel walks a port's open connections for each new one, 0.2 µs for each: as
// often as newLimit lets it, that is a twelfth of a processor.
const openLimit = 4096

// chainAdmit is where new connections go that a rule allows, chainAdmitCheck where those go that follow from the policy.
const (
	chainAdmit      = "admit"
	chainAdmitCheck = "admit-check"
)

// Metered sets, one element a port.
const (
	setStorm     = "storm"
	setNewFrom   = "new-from"
	setNewTo     = "new-to"
	setNewCheck  = "new-check"
	setOpenFrom  = "open-from"
	setOpenTo    = "open-to"
	setOpenCheck = "open-check"
)

func meterSets() []Set {
	var out []Set
	for _, name := range []string{setStorm, setNewFrom, setNewTo, setNewCheck, setOpenFrom, setOpenTo, setOpenCheck} {
		out = append(out, Set{Name: name, Key: []Field{InPort}, Dynamic: true, Metered: true, Size: maxPorts})
	}
	return out
}

// admitChains let a connection begin that is within its port's limits: the sender's, if that is a guest, else the receiver's. They are
// asked behind the rules, since conntrack keeps nothing of what is dropped.
func admitChains() []Chain {
	limited := func(f Field, rate Limit, opened, open string) []Rule {
		return []Rule{
			rule(in(setPorts, f), Meter{Field: f, Set: opened, Rate: rate}, deny(ConnLimit)),
			rule(in(setPorts, f), Meter{Field: f, Set: open, Connections: openLimit}, deny(ConnLimit)),
			rule(in(setPorts, f), accept()),
		}
	}
	from, to := limited(InPort, newLimit, setNewFrom, setOpenFrom), limited(OutPort, newLimit, setNewTo, setOpenTo)
	checks := slices.Concat(limited(InPort, checkLimit, setNewCheck, setOpenCheck), limited(OutPort, checkLimit, setNewCheck, setOpenCheck))
	end := []Rule{rule(deny(NoRule))} // neither end is a guest
	return []Chain{
		{Name: chainAdmit, Rules: slices.Concat([]Rule{rule(anyState(stateUntracked), accept())}, from, to, end)},
		{Name: chainAdmitCheck, Rules: append(checks, end...)},
	}
}
