package hostagent

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/alert"
	"github.com/bladenet/bladenet/policy"
)

// patience is how long something may wait before people are told: most of it is over at the next pass.
const patience = 30 * time.Second

// wrong is what people should know of: what the blade's directors say, guests beyond their limits, and what has waited long.
func (a *Agent) wrong() []alert.Alert {
	blade := a.wantedNow().blade
	var out []alert.Alert
	for _, g := range blade.Guests {
		if how, ok := a.stopped.get(g.Name); g.Driver != policy.DriverKVM || ok && !how.Draining || a.spares.reason(g.Name) != "" {
			continue
		}
		answer, ok := a.helpers.last(g.Name)
		switch {
		case !ok:
		case answer.err != nil && g.Balancer == nil:
			out = append(out, alert.Alert{Kind: alert.GuestSilent, Guest: g.Name, Site: blade.Site, Reason: answer.err.Error()})
		case answer.err != nil:
			out = append(out, alert.Alert{Kind: alert.DirectorSilent, Director: g.Name, Site: blade.Site, Reason: answer.err.Error()})
		case answer.inForce && g.Balancer != nil:
			out = append(out, directorAlerts(g, blade.Site, answer.status)...)
		}
	}
	out = append(out, limitAlerts(a.limits.exceeded(), blade.Guests, blade.Site)...)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.waiting {
		if w.Step.Subsystem != "director" && time.Since(w.Since) > patience {
			reason := w.Step.Reason
			if w.Error != "" {
				reason += ": " + w.Error
			}
			out = append(out, alert.Alert{Kind: alert.Waiting, Object: w.Step.Object, Reason: reason})
		}
	}
	return out
}

// directorAlerts is what is wrong in one director's answer. A server that is down on several VIPs and ports of a service is one
// alert that names them all, and so are VIPs from which nobody is heard.
func directorAlerts(g policy.Guest, site policy.SiteName, s channel.Status) []alert.Alert {
	type subject struct {
		kind    alert.Kind
		service policy.ServiceName
		server  policy.GuestName
	}
	var out []alert.Alert
	at := map[subject]int{}
	merge := func(a alert.Alert) {
		a.Director = g.Name
		x := subject{a.Kind, a.Service, a.RealServer}
		i, known := at[x]
		if !known {
			at[x] = len(out)
			out = append(out, a)
		} else if !slices.Contains(out[i].VIPs, a.VIPs[0]) {
			out[i].VIPs = append(out[i].VIPs, a.VIPs[0])
		}
	}
	sites := sync.OnceValue(func() map[policy.GuestName]policy.SiteName { return sitesOf(g.Balancer) }) // most of the time nobody asks
	for _, v := range s.Services {
		if !v.Up {
			merge(alert.Alert{Kind: alert.ServiceDown, Service: v.Service, VIPs: []netip.Addr{v.VIP}, Site: site, Reason: "too few real servers are up"})
		}
		for _, d := range v.Destinations {
			if !d.Up && strings.HasPrefix(d.Reason, "down") {
				merge(alert.Alert{Kind: alert.ServerDown, Service: v.Service, VIPs: []netip.Addr{v.VIP}, RealServer: d.Guest, Site: sites()[d.Guest], Reason: d.Reason})
			}
			switch {
			case !d.Unheard:
			case strings.HasPrefix(d.Reason, "vip missing"):
				merge(alert.Alert{Kind: alert.VIPMissing, Service: v.Service, VIPs: []netip.Addr{v.VIP}, RealServer: d.Guest, Site: sites()[d.Guest], Reason: d.Reason})
			case d.Weight > 0:
				merge(alert.Alert{Kind: alert.VIPUnheard, VIPs: []netip.Addr{v.VIP}, Site: site, Reason: "by no real server of a site: a router may filter the answers; weights are kept"})
			}
		}
	}
	for _, v := range s.VIPs {
		if !v.Up {
			out = append(out, alert.Alert{Kind: alert.VIPWithdrawn, VIPs: []netip.Addr{v.Address}, Director: g.Name, Site: site, Reason: v.Reason})
		}
	}
	return out
}

// sitesOf says where a balancer's real servers stand, by the policy, not by the director's word.
func sitesOf(b *policy.Balancer) map[policy.GuestName]policy.SiteName {
	out := map[policy.GuestName]policy.SiteName{}
	for _, v := range b.Services {
		for _, d := range v.Destinations {
			out[d.Guest] = d.Site
		}
	}
	return out
}

// alertTargets are where the policy wants alerts sent.
func (a *Agent) alertTargets() []policy.AlertTarget { return a.wantedNow().blade.Alerts }
