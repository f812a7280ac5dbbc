package director

import (
	"net/netip"
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// Health is what is known of each check, by its ID. A check that is missing is unknown, which counts as down.
type Health map[string]health.Result

// Well is the health of a director all of whose real servers are up: with it Decide gives what the policy wants by itself, for
// whoever renders a director without one.
func Well(b policy.Balancer) Health {
	h := make(Health, len(b.Checks))
	for _, c := range b.Checks {
		h[c.ID] = health.Result{ID: c.ID, State: health.Up}
	}
	return h
}

// ServiceKey identifies a virtual service.
type ServiceKey struct {
	VIP      netip.Addr
	Protocol policy.Protocol
	Port     uint16
}

// KeyOf returns the key of v.
func KeyOf(v policy.VirtualService) ServiceKey { return ServiceKey{v.VIP, v.Protocol, v.Port} }

// Memory is what a decision rests on beside policy and health: most of it is taken over from the one before it.
type Memory struct {
	Quorums  map[ServiceKey]bool // services that had their quorum, for the hysteresis
	Settling map[ServiceKey]bool // services that wait for their first verdicts, see settle
	Held     map[netip.Addr]bool // VIPs that are announced
	Unheard  Unheard             // what probes through VIPs say
	Now      time.Time
}

// Decision is what follows from a policy and the health of its real servers.
type Decision struct {
	Services []ServiceDecision // one for each of the balancer's services, in their order
	VIPs     []VIPDecision     // one for each VIP of the director, in their order
}

// ServiceDecision is one virtual service.
type ServiceDecision struct {
	Key     ServiceKey
	Quorum  bool     // enough real servers are up
	Answers bool     // has its quorum, or a sorry server that is up: its VIP is worth announcing
	Short   bool     // without spare ones it has no quorum: spare ones are wanted
	Up      int      // real servers that are up, the sorry server and spare ones without use not counted
	Weights []int    // one for each destination, in their order
	Reasons []string // why a weight is not the policy's own; empty: it is
}

// VIPDecision is one VIP.
type VIPDecision struct {
	Address netip.Addr
	Up      bool
	Reason  string // why it is not
}

// quorums returns which services have their quorum: what the next decision remembers.
func (d Decision) quorums() map[ServiceKey]bool {
	q := make(map[ServiceKey]bool, len(d.Services))
	for _, s := range d.Services {
		q[s.Key] = s.Quorum
	}
	return q
}

// lingerFor bounds how long a real server that left the policy keeps its established connections.
const lingerFor = 15 * time.Minute
