package hostagent

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// metrics writes what supervision needs, in Prometheus' text format.
func (a *Agent) metrics(w http.ResponseWriter, r *http.Request) {
	var text bytes.Buffer
	if err := a.writeMetrics(r.Context(), &exposition{w: &text}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = text.WriteTo(w) // a client that went away is not the daemon's failure
}

func (a *Agent) writeMetrics(ctx context.Context, x *exposition) error {
	now := a.wantedNow()
	s, err := a.observed(ctx, now)
	if err != nil {
		return err
	}
	numbers, err := a.revisions.Numbers()
	if err != nil {
		return err
	}
	x.one("revision", "gauge", "Revision in force.", s.Revision)
	x.one("revisions", "gauge", "Revisions on disk.", len(numbers))
	x.one("revision_on_trial", "gauge", "1 while a revision waits to verify or to be confirmed.", number(now.revision.Trial != nil))
	x.one("converged", "gauge", "1 when the blade is as its revision says.", number(s.Converged))
	x.one("waiting_steps", "gauge", "What is not as it should be.", len(s.Waiting))
	x.one("fights", "gauge", "Objects that somebody else changes again and again.", a.fights.count())
	a.meters.write(x)
	writeGuestMetrics(x, s)
	a.helpers.scrape()
	a.writeDirectorMetrics(x, now.blade)
	x.one("vip_conntrack_entries", "gauge", "Connection-tracking entries that name a VIP; 0 is the promise.", s.Filter.VIPConntrack)
	if err := a.writeFilterMetrics(ctx, x, now.blade); err != nil {
		return err
	}
	writeProcessMetrics(x)
	return x.err
}

// writeGuestMetrics writes guests by state, and what directors balance.
func writeGuestMetrics(x *exposition, s api.Status) {
	type group struct{ role, driver, state string }
	guests := map[group]int{}
	for _, g := range s.Guests {
		guests[group{string(g.Role), string(g.Driver), g.State}]++
	}
	x.family("guests", "gauge", "Guests of this blade, by state.")
	byName := func(a, b group) int {
		return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.driver, b.driver), cmp.Compare(a.state, b.state))
	}
	for _, g := range slices.SortedFunc(maps.Keys(guests), byName) {
		x.sample("guests", guests[g], "role", g.role, "driver", g.driver, "state", g.state)
	}
	x.family("director_in_force", "gauge", "1 when a director answers and has the state that it should.")
	for _, g := range s.Guests {
		if g.Director != nil {
			x.sample("director_in_force", number(g.Director.InForce), "guest", string(g.Name))
		}
	}
	x.family("service_up", "gauge", "1 when a service has its quorum, as a director says.")
	for _, v := range s.Services {
		x.sample("service_up", number(v.Up), "director", string(v.Director), "service", string(v.Service), "vip", v.VIP, "port", fmt.Sprintf("%d/%s", v.Port, v.Protocol))
	}
	x.family("destination_weight", "gauge", "Weight of a real server, as a director says.")
	for _, v := range s.Services {
		for _, d := range v.Destinations {
			x.sample("destination_weight", d.Weight, "director", string(v.Director), "service", string(v.Service), "vip", v.VIP,
				"port", fmt.Sprintf("%d/%s", v.Port, v.Protocol), "guest", string(d.Guest))
		}
	}
}

// writeFilterMetrics writes what the filter counted: drops by reason, by port and reason, and what the policy's rules let in.
func (a *Agent) writeFilterMetrics(ctx context.Context, x *exposition, blade policy.Blade) error {
	c, err := a.cfg.Filter.Counters(ctx)
	if err != nil {
		return fmt.Errorf("read filter counters: %w", err)
	}
	byReason := func(name, help string, counted map[filter.Reason]nft.Counter, labels ...string) {
		if help != "" {
			x.family(name, "counter", help)
		}
		for _, reason := range slices.Sorted(maps.Keys(counted)) {
			x.sample(name, counted[reason].Packets, append(labels, "reason", string(reason))...)
		}
	}
	byReason("filter_dropped_packets_total", "Packets dropped, by reason.", c.Reasons)
	guest := map[string]string{}
	for _, g := range blade.Guests {
		for _, p := range g.Ports {
			guest[p.Name] = string(g.Name)
		}
	}
	x.family("filter_port_dropped_packets_total", "counter", "Packets dropped that came from or were for a port, by reason.")
	for _, port := range slices.Sorted(maps.Keys(c.Ports)) {
		byReason("filter_port_dropped_packets_total", "", c.Ports[port], "port", port, "guest", guest[port])
	}
	x.family("filter_rule_packets_total", "counter", "First packets that a rule of the policy let through.")
	for _, rule := range slices.Sorted(maps.Keys(c.Rules)) {
		x.sample("filter_rule_packets_total", c.Rules[rule].Packets, "rule", rule)
	}
	return nil
}

// writeProcessMetrics writes what the daemon itself costs.
func writeProcessMetrics(x *exposition) {
	x.one("cpu_seconds_total", "counter", "Processor time of the daemon.", processorTime().Seconds())
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		x.one("peak_memory_bytes", "gauge", "Largest resident memory of the daemon so far.", use.Maxrss<<10)
	}
	x.one("goroutines", "gauge", "Goroutines of the daemon.", runtime.NumGoroutine())
}

// processorTime is what this process has computed for so far; 0 where the kernel does not say.
func processorTime() time.Duration {
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
