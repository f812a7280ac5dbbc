package inside

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/bladenet/bladenet/policy/plan"
)

// wantedRoutes numbers the routes to one destination by their metric, in the policy's order; an interface that is not there has none.
func (p *planner) wantedRoutes() []wantedRoute {
	next := map[netip.Prefix]int{}
	var out []wantedRoute
	for _, r := range p.want.Routes {
		destination := r.Destination.Masked()
		metric := next[destination]
		next[destination]++
		if destination.Addr().Is6() {
			metric += metric6
		}
		if index, ok := p.index[r.Interface]; ok {
			out = append(out, wantedRoute{
				Route: Route{Destination: destination, Metric: metric, Via: r.Via, Link: index, Protocol: protocolStatic},
				name:  r.Interface,
			})
		}
	}
	return out
}

type wantedRoute struct {
	Route
	name string
}

func (p *planner) planRoutes() {
	want := p.wantedRoutes()
	for _, h := range p.have.Routes {
		if h.Protocol != protocolStatic {
			continue
		}
		if !slices.ContainsFunc(want, func(w wantedRoute) bool { return sameKey(h, w.Route) }) {
			p.removeRoute(h, "not in the policy")
		}
	}
	for _, w := range want {
		p.planRoute(w)
	}
}

// sameKey says whether two routes stand in each other's place.
func sameKey(a, b Route) bool { return a.Destination == b.Destination && a.Metric == b.Metric }

func (p *planner) planRoute(w wantedRoute) {
	var others []Route
	exists := false
	for _, h := range p.have.Routes {
		if !sameKey(h, w.Route) || p.vanishes(h) {
			continue
		}
		if h == w.Route {
			exists = true
		} else {
			others = append(others, h)
		}
	}
	if exists {
		for _, h := range others {
			p.removeRoute(h, "it would take a share of the traffic")
		}
		return
	}
	verb, detail := plan.Create, p.via(w.Route)
	if len(others) > 0 {
		verb, detail = plan.Update, p.via(others[0])+" -> "+detail
	}
	s := p.step(verb, routeObject(w.Route), []string{detail}, setRoute{w.Route})
	s.needs = []string{"interface " + w.name}
	p.steps = append(p.steps, s)
}

func (p *planner) removeRoute(h Route, reason string) {
	s := p.step(plan.Delete, routeObject(h), []string{p.via(h)}, removeRoute{h})
	s.Reason = reason
	p.steps = append(p.steps, s)
}

// vanishes says whether a route goes before its turn comes: with the last IPv4 address of its interface, or while that one is renamed.
func (p *planner) vanishes(r Route) bool {
	for name, index := range p.index {
		if index == r.Link && (p.renamed[name] || p.lost[name] && r.Destination.Addr().Is4()) {
			return true
		}
	}
	return false
}

func routeObject(r Route) string {
	destination := r.Destination.String()
	if r.Destination.Bits() == 0 && r.Destination.Addr().Is4() {
		destination = "default"
	} else if r.Destination.Bits() == 0 {
		destination = "default6"
	}
	if base := r.Metric; base != 0 && base != metric6 {
		destination += " metric " + strconv.Itoa(base)
	}
	return "route " + destination
}

func (p *planner) via(r Route) string {
	name := ""
	for n, index := range p.index {
		if index == r.Link {
			name = n
		}
	}
	if l, ok := p.have.link(r.Link); ok && name == "" {
		name = shown(l.Name)
	}
	out := "dev " + name
	if r.Via.IsValid() {
		out = "via " + r.Via.String() + " " + out
	}
	return out
}
