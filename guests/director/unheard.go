package director

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/guests/director/reach"
	"github.com/bladenet/bladenet/policy"
)

// uplink is where the answers of probes through VIPs arrive.
const uplink = "eth0"

// Hop is one real server behind one virtual service.
type Hop struct {
	Service ServiceKey
	Guest   policy.GuestName
}

// Unheard holds the real servers that are well by their check and not heard from a VIP. True: another one of the same service and site is
// heard, so that the way of the probes is open, and it is the real server's VIP that is missing or filtered. False: nobody of the site is
// heard; then it is more likely that a router lets no answer through to a director, or filters by the reverse path, and users are served.
type Unheard map[Hop]bool

// ownOf is the director's own address of each family on its uplink: the source of its probes.
func ownOf(in policy.Inside) []netip.Addr {
	var out []netip.Addr
	for _, i := range in.Interfaces {
		if i.Name != uplink {
			continue
		}
		for _, v6 := range []bool{false, true} {
			for _, p := range i.Addresses {
				if p.Addr().Is6() == v6 {
					out = append(out, p.Addr())
					break
				}
			}
		}
	}
	return out
}

// targets lists what to probe: each TCP service by each real server whose check finds it well. One that is down is down whatever its VIP says,
// and when it comes back nothing is held against it.
func targets(b policy.Balancer, h Health) []reach.Target {
	checks := make(map[string]policy.Check, len(b.Checks))
	for _, c := range b.Checks {
		checks[c.ID] = c
	}
	var out []reach.Target
	for _, v := range b.Services {
		if v.Protocol != policy.TCP {
			continue
		}
		for _, d := range v.Destinations {
			c, checked := checks[d.Check]
			if !checked || h[d.Check].State != health.Up {
				continue
			}
			out = append(out, reach.Target{
				Key: reach.Key{Guest: d.Guest, VIP: netip.AddrPortFrom(v.VIP, v.Port)}, MAC: policy.MACOf(d.Guest, syncLink),
				Interval: c.Interval, Timeout: c.Timeout, Rise: c.Rise, Fall: c.Fall,
			})
		}
	}
	return out
}

// unheardOf says what findings mean. passed tells when the last probe of a check that its server passed began: only silence that is older counts,
// for until the check has asked again the whole server may be gone.
func unheardOf(b policy.Balancer, findings map[reach.Key]reach.Finding, passed func(check string) time.Time) Unheard {
	silent := false
	for _, f := range findings {
		silent = silent || f.State == health.Down
	}
	if !silent { // so it is most of the time
		return nil
	}
	x := silence{findings: findings, passed: passed, out: Unheard{}, ofVIP: map[on][]Hop{}}
	for _, v := range b.Services {
		if v.Protocol == policy.TCP {
			x.ask(v)
		}
	}
	for _, v := range b.Services {
		if v.Protocol == policy.UDP {
			x.infer(v)
		}
	}
	return x.out
}

// silence is what is gathered while findings are read.
type silence struct {
	findings map[reach.Key]reach.Finding
	passed   func(check string) time.Time
	out      Unheard
	ofVIP    map[on][]Hop // the TCP services of a VIP by a real server that has an answer or is known to have none
}

type on struct {
	vip   netip.Addr
	guest policy.GuestName
}

func (x silence) finding(v policy.VirtualService, d policy.Destination) reach.Finding {
	return x.findings[reach.Key{Guest: d.Guest, VIP: netip.AddrPortFrom(v.VIP, v.Port)}]
}

// ask reads what was found of one TCP service.
func (x silence) ask(v policy.VirtualService) {
	for _, d := range v.Destinations {
		f, hop := x.finding(v, d), Hop{KeyOf(v), d.Guest}
		if f.State != health.Unknown {
			x.ofVIP[on{v.VIP, d.Guest}] = append(x.ofVIP[on{v.VIP, d.Guest}], hop)
		}
		if f.State == health.Down && x.passed(d.Check).After(f.Since) {
			x.out[hop] = slices.ContainsFunc(v.Destinations, func(other policy.Destination) bool {
				return other.Site == d.Site && beside(f, x.finding(v, other))
			})
		}
	}
}

// beside says whether another real server is heard while one is silent: it has been heard since the silence is known, and the one has been
// missed again since the other is heard. So nobody is blamed while a router begins to filter, or ceases to.
func beside(silent, other reach.Finding) bool {
	return other.State == health.Up && other.Heard.After(silent.Since) && silent.Missed.After(other.Since)
}

// infer says of a UDP service what the TCP ports of its VIP say of the same real server, if all of them are silent: the VIP is one for all.
func (x silence) infer(v policy.VirtualService) {
	for _, d := range v.Destinations {
		hops := x.ofVIP[on{v.VIP, d.Guest}]
		silent, missing := len(hops) > 0, false
		for _, hop := range hops {
			is, known := x.out[hop]
			silent, missing = silent && known, missing || is
		}
		if silent {
			x.out[Hop{KeyOf(v), d.Guest}] = missing
		}
	}
}

// listen tells the prober what to probe, when that differs, and returns what its findings mean.
func (c *Controller) listen(state channel.Apply) Unheard {
	c.mu.Lock()
	retarget := c.retarget
	c.retarget = false
	var list []reach.Target
	if retarget {
		list = targets(state.Balancer, c.health)
	}
	c.mu.Unlock()
	if retarget {
		c.cfg.Prober.Want(ownOf(state.Inside), list)
	}
	return unheardOf(state.Balancer, c.cfg.Prober.Findings(), c.probes.passed)
}

// sayUnheard logs whose VIP is missing and whose is back. That nobody is heard is said once, not of each.
func (c *Controller) sayUnheard(before, after Unheard) {
	kept := func(u Unheard) (n int) {
		for _, missing := range u {
			if !missing {
				n++
			}
		}
		return n
	}
	for hop, missing := range after {
		if missing && !before[hop] {
			c.cfg.Log.Warn("real server is not heard", "guest", hop.Guest, "vip", hop.Service.VIP, "port", hop.Service.Port, "proto", hop.Service.Protocol, "reason", vipMissing)
		}
	}
	for hop, missing := range before {
		if missing && !after[hop] {
			c.cfg.Log.Info("real server is heard again, or gone", "guest", hop.Guest, "vip", hop.Service.VIP, "port", hop.Service.Port, "proto", hop.Service.Protocol)
		}
	}
	if was, is := kept(before), kept(after); was == 0 && is > 0 {
		c.cfg.Log.Warn("no real server is heard from a VIP", "destinations", is, "reason", "the way of the probes may be filtered; weights are kept")
	}
}
