package filter

// Limits on what one guest may take of what all share. They bound an attack, not a service: ordinary use stays far below.
var (
	// stormLimit bounds what a guest's port sends to many at once: ARP, neighbour discovery, routing protocols. A director that asks for
	// five hundred real servers at once is within it.
	stormLimit = Limit{PerSecond: 250, Burst: 500}

	// newLimit bounds the connections that a port opens, and those that are opened to it. A closed connection stays in conntrack's
	// table for two minutes (nf_conntrack_tcp_timeout_time_wait), so that it also bounds those.
	newLimit = Limit{PerSecond: 100, Burst: 500}
)

// openLimit bounds the open connections from a port, and those to it. With newLimit a port takes at most 17 000 entries each way; the
// table of a blade with more than 4 GiB holds 262 144. The kernel walks a port's open connections for each new one, 0.2 µs for each: as
// often as newLimit lets it, that is a twelfth of a processor.
const openLimit = 4096

// chainAdmit is where new connections go that a rule or the policy allows.
const chainAdmit = "admit"

// Metered sets, one element a port.
const (
	setStorm    = "storm"
	setNewFrom  = "new-from"
	setNewTo    = "new-to"
	setOpenFrom = "open-from"
	setOpenTo   = "open-to"
)

func meterSets() []Set {
	var out []Set
	for _, name := range []string{setStorm, setNewFrom, setNewTo, setOpenFrom, setOpenTo} {
		out = append(out, Set{Name: name, Key: []Field{InPort}, Dynamic: true, Metered: true, Size: maxPorts})
	}
	return out
}

// admitChain lets a connection begin that is within its port's limits: the sender's, if that is a guest, else the receiver's. It is
// asked behind the rules, since conntrack keeps nothing of what is dropped.
func admitChain() Chain {
	limited := func(f Field, opened, open string) []Rule {
		return []Rule{
			rule(in(setPorts, f), Meter{Field: f, Set: opened, Rate: newLimit}, deny(ConnLimit)),
			rule(in(setPorts, f), Meter{Field: f, Set: open, Connections: openLimit}, deny(ConnLimit)),
			rule(in(setPorts, f), accept()),
		}
	}
	rules := []Rule{rule(anyState(stateUntracked), accept())}
	rules = append(rules, limited(InPort, setNewFrom, setOpenFrom)...)
	return Chain{Name: chainAdmit, Rules: append(rules, limited(OutPort, setNewTo, setOpenTo)...)}
}
