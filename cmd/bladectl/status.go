package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/bladenet/bladenet/hostagent/api"
)

func statusVerb() verb {
	v := verb{
		name: "status", args: "", brief: "Show links, guests, services, and what is not as it should be",
		example: "bladectl status -o json",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		supervised := f.Bool("nagios", false, "one line and an exit status for supervision: 0 all is well, 1 warning, 2 critical")
		if _, err := f.parse(args, 0, 0); err != nil {
			return err
		}
		s, err := f.client.Status(ctx)
		if *supervised {
			return nagios(e.stdout, s, err)
		}
		if err != nil {
			return err
		}
		return f.print(s, func() error { return writeStatus(e.stdout, s) })
	}
	return v
}

func writeStatus(w io.Writer, s api.Status) error {
	state := "as wanted"
	if !s.Converged {
		state = "not as wanted yet"
	}
	fmt.Fprintf(w, "blade %s  site %s  zone %s  revision %d  %s\n", s.Blade, s.Site, s.Zone, s.Revision, state)
	if t := s.Trial; t != nil {
		fmt.Fprintf(w, "! revision %d %s\n", s.Revision, trialLine(*t))
	}
	if s.Pending != "" {
		fmt.Fprintf(w, "! %s\n", s.Pending)
	}
	for _, x := range s.Waiting {
		fmt.Fprintf(w, "%s  since %s", x.Step, x.Since.Format("15:04:05"))
		if x.Error != "" {
			fmt.Fprintf(w, "\n    %s", strings.ReplaceAll(x.Error, "\n", "\n    "))
		}
		fmt.Fprintln(w)
	}
	writeLinks(w, s)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	writeGuests(t, s.Guests)
	writeServices(t, s.Services)
	if err := t.Flush(); err != nil {
		return err
	}
	return writeFilter(w, s.Filter)
}

func trialLine(t api.Trial) string {
	if !t.Verified {
		return fmt.Sprintf("is being verified; if it does not, the blade returns to revision %d", t.Back)
	}
	return fmt.Sprintf("waits for `bladectl confirm` until %s, else the blade returns to revision %d", t.Deadline.Format("15:04:05"), t.Back)
}

// writeLinks draws the bridges with their ports.
func writeLinks(w io.Writer, s api.Status) {
	if len(s.Links) > 0 {
		fmt.Fprintf(w, "\ntrunk %s\n", s.Trunk)
	}
	for i, l := range s.Links {
		branch, stem := "├─", "│ "
		if i == len(s.Links)-1 {
			branch, stem = "└─", "  "
		}
		fmt.Fprintf(w, "  %s %s (802.1q %d) ─ %s  %s\n", branch, l.Uplink, l.VLAN, l.Bridge, l.Network)
		for j, p := range l.Ports {
			twig := "├─"
			if j == len(l.Ports)-1 {
				twig = "└─"
			}
			up := "up"
			if !p.Up {
				up = "down"
			}
			fmt.Fprintf(w, "  %s     %s %-15s %s %s  %s  %s\n", stem, twig, p.Name, p.Guest, p.Interface, p.MAC, up)
		}
	}
}

func writeGuests(w io.Writer, guests []api.Guest) {
	fmt.Fprintln(w, "\nGUEST\tROLE\tRUNS\tIMAGE\tSTATE\tADDRESSES")
	for _, g := range guests {
		state := g.State
		if g.Held != "" {
			state += ", " + g.Held
		}
		if g.Drained {
			state += ", drained"
		}
		if g.NewerBuild != "" {
			state += ", an older build"
		}
		if d := g.Director; d != nil && g.Held == "" {
			switch {
			case d.Error != "":
				state += ", " + d.Error
			case !d.Answering:
				state += ", does not answer"
			case !d.InForce:
				state += ", has an older state"
			case d.Protocol == "vrrp":
				state += fmt.Sprintf(", has %d VIPs", len(d.Holds))
			default:
				state += fmt.Sprintf(", %d adjacencies", d.Neighbors)
			}
		}
		if m := g.Machine; m != nil && g.Held == "" {
			if words := machineWords(*m); words != "" {
				state += ", " + words
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, g.Role, g.Driver, g.Image, state, strings.Join(g.Addresses, " "))
	}
}

// machineWords say what a real server in a virtual machine lacks, or how often its service had to be started again.
func machineWords(m api.Machine) string {
	switch {
	case m.Error != "":
		return m.Error
	case !m.Answering:
		return "does not answer"
	case !m.InForce:
		return "has an older state"
	case !m.Running:
		return "its service does not run: " + cmp.Or(m.Ended, "not started yet")
	case m.Restarts > 0:
		return fmt.Sprintf("its service was started again %d times: %s", m.Restarts, m.Ended)
	}
	return ""
}

func writeServices(w io.Writer, services []api.Service) {
	fmt.Fprintln(w, "\nSERVICE\tVIP\tPORT\tDIRECTOR\tSTATE\tREAL SERVERS")
	for _, s := range services {
		state := "down"
		if s.Up {
			state = "up"
		}
		if s.Announced {
			state += ", announced"
		}
		var servers []string
		for _, d := range s.Destinations {
			text := fmt.Sprintf("%s=%d", d.Guest, d.Weight)
			if (!d.Up || d.Unheard) && d.Reason != "" {
				text += " (" + d.Reason + ")"
			}
			servers = append(servers, text)
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%s\t%s\t%s\t%s\n", s.Service, s.VIP, s.Port, s.Protocol, s.Director, state, strings.Join(servers, " "))
	}
}

func writeFilter(w io.Writer, f api.Filter) error {
	_, err := fmt.Fprintf(w, "\nconntrack entries of VIPs: %d\ndropped packets: %s\n", f.VIPConntrack, reasonsLine(f.Dropped))
	for _, port := range slices.Sorted(maps.Keys(f.Ports)) {
		_, err = fmt.Fprintf(w, "  %-15s %s\n", port, reasonsLine(f.Ports[port]))
	}
	return err
}

// reasonsLine writes the reasons for which anything was dropped, each with its packets.
func reasonsLine(dropped map[string]uint64) string {
	var words []string
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		if dropped[reason] > 0 {
			words = append(words, fmt.Sprintf("%s=%d", reason, dropped[reason]))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}
