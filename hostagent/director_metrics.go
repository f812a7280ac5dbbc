package hostagent

import (
	"fmt"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

// writeDirectorMetrics writes what each real server has to do and how its checks go, as directors of this blade counted it at most
// scrapeAge before. The first scrape after a pause finds nothing: it is what has the directors count.
func (a *Agent) writeDirectorMetrics(x *exposition, blade policy.Blade) {
	type counted struct {
		director policy.GuestName
		status   channel.Status
	}
	var all []counted
	for _, g := range blade.Guests {
		if answer, ok := a.helpers.last(g.Name); ok && answer.err == nil {
			all = append(all, counted{g.Name, answer.counted})
		}
	}
	x.family("director_omitted_destinations", "gauge", "Real servers of services that a director left out because its answer was too long.")
	for _, c := range all {
		x.sample("director_omitted_destinations", c.status.Omitted, "director", string(c.director))
	}
	for _, m := range []struct {
		name, kind, help string
		value            func(channel.DestinationStatus) any
	}{
		{"destination_up", "gauge", "1 while a real server is up for a service.", func(d channel.DestinationStatus) any { return number(d.Up) }},
		{"destination_unheard", "gauge", "1 while no probe through the VIP by a real server that is up is answered.", func(d channel.DestinationStatus) any { return number(d.Unheard) }},
		{"destination_connections", "gauge", "Established connections of a real server.", func(d channel.DestinationStatus) any { return d.Active }},
		{"destination_inactive_connections", "gauge", "Other connections that are remembered.", func(d channel.DestinationStatus) any { return d.Inactive }},
		{"destination_connections_total", "counter", "Connections that a real server was given.", func(d channel.DestinationStatus) any { return d.Total.Connections }},
		{"destination_packets_total", "counter", "Packets to a real server.", func(d channel.DestinationStatus) any { return d.Total.Packets }},
		{"destination_bytes_total", "counter", "Bytes to a real server. Answers do not pass a director.", func(d channel.DestinationStatus) any { return d.Total.Bytes }},
	} {
		x.family(m.name, m.kind, m.help)
		for _, c := range all {
			for _, v := range c.status.Services {
				for _, d := range v.Destinations {
					x.sample(m.name, m.value(d), "director", string(c.director), "service", string(v.Service), "vip", v.VIP.String(),
						"port", fmt.Sprintf("%d/%s", v.Port, v.Protocol), "guest", string(d.Guest))
				}
			}
		}
	}
	for _, m := range []struct {
		name, kind, help string
		value            func(channel.ProbeStatus) any
	}{
		{"check_up", "gauge", "1 while a health check finds its real server up.", func(p channel.ProbeStatus) any { return number(p.Up) }},
		{"check_seconds", "gauge", "What its last probe took.", func(p channel.ProbeStatus) any { return p.Took.Seconds() }},
		{"checks_total", "counter", "Probes that ended.", func(p channel.ProbeStatus) any { return p.Ended }},
		{"check_failures_total", "counter", "Those of them that failed.", func(p channel.ProbeStatus) any { return p.Failed }},
	} {
		x.family(m.name, m.kind, m.help)
		for _, c := range all {
			for _, p := range c.status.Probes {
				x.sample(m.name, m.value(p), "director", string(c.director), "guest", string(p.Guest), "check", p.ID)
			}
		}
	}
}
