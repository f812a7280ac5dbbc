package reach

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// Key is one real server behind one TCP port of one VIP.
type Key struct {
	Guest policy.GuestName
	VIP   netip.AddrPort
}

// Target is what is probed, at the pace of the real server's health check.
type Target struct {
	Key
	MAC               policy.MAC // of its eth1
	Interval, Timeout time.Duration
	Rise, Fall        int
}

// Finding is what is known of a target: nothing until its first verdict.
type Finding struct {
	State  health.State
	Since  time.Time // when the probe that decided it began
	Heard  time.Time // when the last probe began that was answered
	Missed time.Time // when the last one began that was not
}

// Answer is a segment that may answer a probe.
type Answer struct {
	From, To netip.AddrPort
	Sequence uint32 // of the SYN that it acknowledges
	Refused  bool   // RST: the VIP is there, and nothing listens
}

// Probe is a segment of a probe.
type Probe struct {
	From, To netip.AddrPort
	Sequence uint32
	Reset    bool // else it is a SYN
}

// Wire is the way to real servers and back.
type Wire interface {
	// Source is where the answers to probes of a family are heard; false: the director has no address of it.
	Source(v6 bool) (netip.AddrPort, bool)
	Send(p Probe, to policy.MAC) error
	Close() error
}

// How often a target is probed whose last probe said what was known: once in so many intervals of its check, and no oftener than often.
// One that speaks against it is repeated after one interval.
const (
	slower = 5
	often  = 10 * time.Second
)

// first is how long a new target waits.
func first() time.Duration { return rand.N(health.FirstWithin) }

// pace is what lies between two probes of the target.
func (t Target) pace(sure bool) time.Duration {
	if !sure {
		return t.Interval
	}
	pace := max(slower*t.Interval, often)
	return pace*9/10 + rand.N(pace/5)
}
