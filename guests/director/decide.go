package director

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

// Decide says which weights and which VIPs follow from the health of the real servers and from what was before. It is pure.
//
// A service gains its quorum at Quorum real servers that are up and loses it below Quorum less Hysteresis, never before the
// last one: the hysteresis lets it fall deeper, it never asks for more than the quorum to come back, which a service with all
// its servers up could then miss for ever.
//
// A VIP is up while at least one of its services answers. Every director sees the same real servers: a rule that asked for all
// of them would let one service's failure withdraw its healthy neighbours everywhere at once. Clients of the one that fails are
// refused at once by its empty table.
//
// A service that settles has no weights, and its VIP stays as it is: to announce a table that knows some of its servers only
// would send sessions that another director began to the wrong ones.
func Decide(b policy.Balancer, vips []policy.VIP, h Health, before Memory) Decision {
	var d Decision
	answers, settling := map[netip.Addr]bool{}, map[netip.Addr]policy.ServiceName{}
	short := map[netip.Addr]string{}
	for _, v := range b.Services {
		key := KeyOf(v)
		s := decideHeard(v, h, before)
		if before.Settling[key] {
			s.wait(v)
			settling[v.VIP] = v.Service
		}
		d.Services = append(d.Services, s)
		answers[v.VIP] = answers[v.VIP] || s.Answers
		if !s.Answers && short[v.VIP] == "" {
			short[v.VIP] = fmt.Sprintf("%s has %d of %d real servers that it needs", v.Service, s.Up, v.Quorum)
		}
	}
	for _, v := range vips {
		x := VIPDecision{Address: v.Address, Up: answers[v.Address]}
		service, waits := settling[v.Address]
		if waits {
			x.Up = before.Held[v.Address]
		}
		switch {
		case x.Up:
		case waits:
			x.Reason = fmt.Sprintf("%s waits for the first check of every real server", service)
		case short[v.Address] != "":
			x.Reason = short[v.Address]
		default:
			x.Reason = "no service of this director"
		}
		d.VIPs = append(d.VIPs, x)
	}
	return d
}

// wait takes the weights of a service that settles away.
func (s *ServiceDecision) wait(v policy.VirtualService) {
	s.Quorum, s.Answers, s.Short = false, false, false
	for i := range v.Destinations {
		if s.Weights[i] > 0 {
			s.Weights[i], s.Reasons[i] = 0, "the service waits for the first check of every real server"
		}
	}
}

// decideHeard takes real servers out of the rotation whose VIP is missing or filtered. The quorum does not count them out, and where nobody
// would be left they stay in: probes alone never take a VIP from all its users.
func decideHeard(v policy.VirtualService, h Health, before Memory) ServiceDecision {
	key := KeyOf(v)
	missing := make([]bool, len(v.Destinations))
	if len(before.Unheard) == 0 {
		return decideService(v, h, before, missing)
	}
	for i, d := range v.Destinations {
		missing[i] = before.Unheard[Hop{key, d.Guest}]
	}
	s := decideService(v, h, before, missing)
	if slices.Contains(missing, true) && !s.taken(v) {
		s = decideService(v, h, before, make([]bool, len(missing)))
	}
	for i, d := range v.Destinations {
		if _, unheard := before.Unheard[Hop{key, d.Guest}]; unheard && s.Weights[i] > 0 && s.Reasons[i] == "" {
			s.Reasons[i] = vipUnheard
		}
	}
	return s
}

// Why a real server that passes its check is not as another one.
const (
	vipMissing = "vip missing or filtered"
	vipUnheard = "no probe through the vip is answered; kept, for it may be the way of the probes"
)

// taken says whether anybody but a sorry server takes connections.
func (s *ServiceDecision) taken(v policy.VirtualService) bool {
	for i, d := range v.Destinations {
		if !d.Sorry && s.Weights[i] > 0 {
			return true
		}
	}
	return false
}

// decideService decides one service. What is missing, one for each destination, has no weight and calls spare ones.
func decideService(v policy.VirtualService, h Health, before Memory, missing []bool) ServiceDecision {
	s := ServiceDecision{Key: KeyOf(v), Weights: make([]int, len(v.Destinations)), Reasons: make([]string, len(v.Destinations))}
	need := v.Quorum
	if before.Quorums[s.Key] {
		need = max(v.Quorum-v.Hysteresis, min(v.Quorum, 1))
	}
	regular := 0
	for i, d := range v.Destinations {
		if d = asAnswered(d, h); !d.Spare && counts(d, h) && !missing[i] {
			regular++
		}
	}
	s.Short = regular < need
	local, sorry := false, false
	for i, d := range v.Destinations {
		d = asAnswered(d, h)
		switch {
		case !isUp(d, h), d.Drained, d.Spare && !s.Short:
		case d.Sorry:
			sorry = true
		default:
			if counts(d, h) {
				s.Up++
			}
			local = local || d.Remote == 0 && d.Weight > 0 && !missing[i]
		}
	}
	s.Quorum = s.Up >= need
	s.Answers = s.Quorum || sorry

	for i, d := range v.Destinations {
		if d.Sorry {
			continue
		}
		s.Weights[i], s.Reasons[i] = weigh(v, d, h, local)
		if d.Spare {
			s.Weights[i], s.Reasons[i] = spareWeight(s.Weights[i], s.Reasons[i], isUp(d, h), s.Short)
		} else if weight, reason := slowly(v, h[d.Check], s.Weights[i], before.Now); reason != "" {
			s.Weights[i], s.Reasons[i] = weight, reason
		}
		if missing[i] && s.Weights[i] > 0 {
			s.Weights[i], s.Reasons[i] = 0, vipMissing
		}
	}
	taken := s.taken(v)
	for i, d := range v.Destinations {
		switch {
		case !d.Sorry:
		case !isUp(d, h):
			s.Reasons[i] = downReason(d, h)
		case d.Drained:
			s.Reasons[i] = drained
		case taken:
			s.Reasons[i] = "sorry server; others are up"
		default:
			s.Weights[i], s.Reasons[i] = d.Weight, "sorry server; no other is up"
		}
	}
	return s
}

// drained is why a destination that is well takes no new connections. It keeps its place in a Maglev table.
const drained = "drained"

// weigh is the weight of one ordinary destination. Only a destination of another site has a Remote weight.
func weigh(v policy.VirtualService, d policy.Destination, h Health, local bool) (int, string) {
	reason := ""
	if h[d.Check].Weighs {
		reason = "its check sets the weight"
	}
	d = asAnswered(d, h)
	switch {
	case !isUp(d, h):
		return 0, downReason(d, h)
	case d.Drained:
		return 0, drained
	case v.Mode == "locality" && d.Remote > 0 && !local:
		return d.Remote, "no local server is up"
	}
	return d.Weight, reason
}

// counts reports whether a destination is one towards the quorum.
func counts(d policy.Destination, h Health) bool {
	return isUp(d, h) && !d.Drained && !d.Sorry && max(d.Weight, d.Remote) > 0
}

// spareWeight is what of its weight a spare one has: nothing while the others suffice, and all of it at once when they do not. That it is down
// is the rule, and no reason to tell anybody.
func spareWeight(weight int, reason string, up, short bool) (int, string) {
	switch {
	case !up:
		return 0, "spare: " + reason
	case !short:
		return 0, "spare; the others suffice"
	}
	return weight, reason
}

// asAnswered is a destination with the weight that its check gives, if it does: in place of the policy's, of which another site
// keeps its share.
func asAnswered(d policy.Destination, h Health) policy.Destination {
	a := h[d.Check]
	switch {
	case !a.Weighs || d.Sorry:
	case d.Remote > 0:
		d.Weight, d.Remote = (a.Weight*d.Weight+d.Remote-1)/d.Remote, a.Weight
	default:
		d.Weight = a.Weight
	}
	return d
}

// slowSteps is in how many steps the weight of a server that comes back grows.
const slowSteps = 10

// slowly is the weight of a server that came back lately; no reason: it is the whole one.
func slowly(v policy.VirtualService, r health.Result, whole int, now time.Time) (int, string) {
	if v.SlowStart <= 0 || !r.Back || whole == 0 || now.Sub(r.Since) >= v.SlowStart {
		return whole, ""
	}
	step := 1 + int(slowSteps*max(now.Sub(r.Since), 0)/v.SlowStart)
	return max(whole*step/slowSteps, 1), "slow start until " + r.Since.Add(v.SlowStart).UTC().Format(time.TimeOnly)
}

func isUp(d policy.Destination, h Health) bool {
	return d.Check == "" || h[d.Check].State == health.Up
}

func downReason(d policy.Destination, h Health) string {
	r := h[d.Check]
	if r.State == health.Unknown {
		return "not checked yet"
	}
	return "down: " + r.Reason
}
