package ipvs

import (
	"fmt"
	"net/netip"

	"github.com/bladenet/bladenet/policy/plan"
)

// Op is what a step does in the kernel.
type Op int

// The operations.
const (
	AddService Op = iota
	SetService
	DelService
	AddDestination
	SetDestination
	DelDestination
)

// Step is one change of the table: what people read, and what Apply sends.
type Step struct {
	plan.Step
	Op          Op
	Service     Service     // without its destinations
	Destination Destination // of the Destination operations
}

// Plan returns the steps from have to want: services of want in its order, each with its destinations, then what is not
// wanted. Within a service new and raised destinations come before lowered and leaving ones, so that no moment is emptier than
// both ends.
func Plan(want, have Table) []Step {
	var p planner
	current := make(map[Key]*Service, len(have.Services))
	for i := range have.Services {
		current[have.Services[i].Key] = &have.Services[i]
	}
	wanted := make(map[Key]bool, len(want.Services))
	for _, w := range want.Services {
		wanted[w.Key] = true
		h, exists := current[w.Key]
		if !exists {
			p.service(AddService, plan.Create, w, nil, "")
			h = &Service{}
		} else if detail := serviceDiff(w, *h); len(detail) > 0 {
			p.service(SetService, plan.Update, w, detail, "")
		}
		p.destinations(w, *h, want.Overdue)
	}
	for _, h := range have.Services {
		if !wanted[h.Key] {
			p.leavingService(h, want.Overdue)
		}
	}
	return p.steps
}

type planner struct{ steps []Step }

func (p *planner) service(op Op, verb plan.Verb, s Service, detail []string, reason string) {
	bare := s
	bare.Destinations = nil
	if op == AddService {
		detail = append(detail, "scheduler "+s.Scheduler)
		if text := flagText(s); text != "" {
			detail = append(detail, "flags "+text)
		}
		if s.Flags&FlagPersistent != 0 {
			detail = append(detail, fmt.Sprintf("persistence %s", s.Persistence))
			if s.Netmask != wholeAddress(s.IPv6) {
				detail = append(detail, "clients of "+maskText(s))
			}
		}
		if s.Flags&FlagOnePacket != 0 {
			detail = append(detail, "one packet")
		}
	}
	object := "service " + s.Key.String()
	if s.Name != "" {
		object = fmt.Sprintf("service %s %s", s.Name, s.Key)
	}
	p.steps = append(p.steps, Step{
		Step: plan.Step{Subsystem: "director", Verb: verb, Object: object, Detail: detail, Reason: reason},
		Op:   op, Service: bare,
	})
}

func (p *planner) destination(op Op, verb plan.Verb, s Service, d Destination, detail []string, reason string) {
	bare := s
	bare.Destinations = nil
	name := ""
	if d.Guest != "" {
		name = string(d.Guest) + " "
	}
	p.steps = append(p.steps, Step{
		Step: plan.Step{
			Subsystem: "director", Verb: verb,
			Object: fmt.Sprintf("server %s%s of %s", name, d.endpoint(), s.Key),
			Detail: detail, Reason: reason,
		},
		Op: op, Service: bare, Destination: d,
	})
}

func (p *planner) destinations(want, have Service, overdue map[DestinationKey]bool) {
	current := make(map[netip.AddrPort]Destination, len(have.Destinations))
	for _, d := range have.Destinations {
		current[d.endpoint()] = d
	}
	wanted := make(map[netip.AddrPort]bool, len(want.Destinations))
	var lowered []Destination
	for _, w := range want.Destinations {
		wanted[w.endpoint()] = true
		h, exists := current[w.endpoint()]
		switch {
		case !exists:
			if p.add(want, w) {
				lowered = append(lowered, w)
				current[w.endpoint()] = Destination{Weight: w.Base, Method: w.Method}
			}
		case h.Method != w.Method || w.Weight > h.Weight:
			p.update(want, w, h)
		case w.Weight < h.Weight:
			lowered = append(lowered, w)
		}
	}
	for _, w := range lowered {
		p.update(want, w, current[w.endpoint()])
	}
	for _, h := range have.Destinations {
		if !wanted[h.endpoint()] {
			p.leaving(want, h, overdue)
		}
	}
}

// add creates a destination and says whether it must be lowered afterwards. Maglev sizes a destination's share of its table by
// the last weight that was not 0 and keeps it at weight 0: one that begins with 0 would have no share here while it has one on
// a director that saw it well, and the two tables would differ.
func (p *planner) add(s Service, w Destination) (lower bool) {
	first := w
	if s.Scheduler == "mh" && w.Weight == 0 && w.Base > 0 {
		first.Weight = w.Base
	}
	p.destination(AddDestination, plan.Create, s, first, []string{fmt.Sprintf("weight %d", first.Weight)}, w.Reason)
	return first.Weight != w.Weight
}

func (p *planner) update(s Service, w, h Destination) {
	var detail []string
	if h.Weight != w.Weight {
		detail = append(detail, fmt.Sprintf("weight %d -> %d", h.Weight, w.Weight))
	}
	if h.Method != w.Method {
		detail = append(detail, fmt.Sprintf("forward %s -> %s", h.Method, w.Method))
	}
	p.destination(SetDestination, plan.Update, s, w, detail, w.Reason)
}

// leaving takes a destination that is not wanted out of service. While it has connections there is nothing more to do.
func (p *planner) leaving(s Service, h Destination, overdue map[DestinationKey]bool) {
	switch {
	case h.Active+h.Inactive == 0:
		p.destination(DelDestination, plan.Delete, s, h, nil, "not in the policy")
	case overdue[DestinationKey{s.Key, h.Address, h.Port}]:
		p.destination(DelDestination, plan.Delete, s, h, []string{fmt.Sprintf("%d connections", h.Active+h.Inactive)}, "not in the policy, lingered long enough")
	case h.Weight != 0:
		p.update(s, Destination{Guest: h.Guest, Address: h.Address, Port: h.Port, Method: h.Method, Reason: "not in the policy"}, h)
	}
}

// leavingService takes a whole service out. It goes with its last destination.
func (p *planner) leavingService(h Service, overdue map[DestinationKey]bool) {
	before := len(p.steps)
	left := 0
	for _, d := range h.Destinations {
		p.leaving(h, d, overdue)
		if n := len(p.steps); n == before || p.steps[n-1].Op != DelDestination || p.steps[n-1].Destination.endpoint() != d.endpoint() {
			left++
		}
	}
	if left == 0 {
		p.service(DelService, plan.Delete, h, nil, "not in the policy")
	}
}

// Leaving returns the destinations of have that want does not name: what drains.
func Leaving(want, have Table) []DestinationKey {
	wanted := map[DestinationKey]bool{}
	for _, s := range want.Services {
		for _, d := range s.Destinations {
			wanted[DestinationKey{s.Key, d.Address, d.Port}] = true
		}
	}
	var keys []DestinationKey
	for _, s := range have.Services {
		for _, d := range s.Destinations {
			if k := (DestinationKey{s.Key, d.Address, d.Port}); !wanted[k] {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// serviceDiff says what differs of what we manage. The netmask is ours only where persistence uses it.
func serviceDiff(want, have Service) []string {
	var d []string
	if want.Scheduler != have.Scheduler {
		d = append(d, fmt.Sprintf("scheduler %s -> %s", have.Scheduler, want.Scheduler))
	}
	if want.Flags&flagsManaged != have.Flags&flagsManaged {
		d = append(d, fmt.Sprintf("flags %#x -> %#x", uint32(have.Flags&flagsManaged), uint32(want.Flags&flagsManaged)))
	}
	if want.Flags&FlagPersistent != 0 && have.Flags&FlagPersistent != 0 {
		if want.Persistence != have.Persistence {
			d = append(d, fmt.Sprintf("persistence %s -> %s", have.Persistence, want.Persistence))
		}
		if want.Netmask != have.Netmask {
			d = append(d, fmt.Sprintf("netmask %#x -> %#x", have.Netmask, want.Netmask))
		}
	}
	return d
}

// String is the method's name in the policy's words.
func (m Method) String() string {
	switch m {
	case Masquerade:
		return "nat"
	case Local:
		return "local"
	case Tunnel:
		return "tunnel"
	case Route:
		return "direct"
	}
	return fmt.Sprintf("method %d", uint32(m))
}
