package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/hostagent/api"
)

// Exit statuses of a supervision plugin, as Nagios and those that follow it read them.
const (
	nagiosOK       = 0
	nagiosWarning  = 1
	nagiosCritical = 2
)

// exitStatus is a verb's end with an exit status of its own; everything has been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// nagios judges a status, or why there is none, on one line with the figures behind it.
func nagios(w io.Writer, s api.Status, err error) error {
	level, findings := judge(s, err)
	word := map[int]string{nagiosOK: "OK", nagiosWarning: "WARNING", nagiosCritical: "CRITICAL"}[level]
	if len(findings) == 0 {
		findings = []string{fmt.Sprintf("revision %d, %d guests, %d services", s.Revision, len(s.Guests), len(s.Services))}
	}
	running := 0
	for _, g := range s.Guests {
		if g.State == "running" {
			running++
		}
	}
	_, failed := fmt.Fprintf(w, "BLADENET %s - %s | waiting=%d guests=%d running=%d vip_conntrack=%d\n",
		word, strings.Join(findings, "; "), len(s.Waiting), len(s.Guests), running, s.Filter.VIPConntrack)
	if failed != nil || level == nagiosOK {
		return failed
	}
	return exitStatus(level)
}

func judge(s api.Status, err error) (level int, findings []string) {
	find := func(at int, format string, args ...any) {
		level = max(level, at)
		text, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
		findings = append(findings, strings.ReplaceAll(text, "|", "/")) // a bar begins the figures
	}
	if err != nil {
		find(nagiosCritical, "%v", err)
		return level, findings
	}
	if s.Revision == 0 {
		find(nagiosCritical, "no revision is in force")
	}
	if s.Filter.VIPConntrack > 0 {
		find(nagiosCritical, "%d VIP connections are tracked", s.Filter.VIPConntrack)
	}
	for _, v := range s.Services {
		if !v.Up {
			find(nagiosCritical, "%s at %s %d/%s is down on %s", v.Service, v.VIP, v.Port, v.Protocol, v.Director)
		}
	}
	unheard := map[string]bool{}
	for _, v := range s.Services {
		for _, d := range v.Destinations {
			if d.Unheard {
				unheard[string(d.Guest)] = true
			}
		}
	}
	if len(unheard) > 0 {
		find(nagiosWarning, "%d real servers are well and not heard from a VIP: %s", len(unheard), strings.Join(slices.Sorted(maps.Keys(unheard)), " "))
	}
	for _, g := range s.Guests {
		if g.State != "running" {
			find(nagiosCritical, "%s is %s", g.Name, g.State)
		}
	}
	for _, g := range s.Guests {
		if m := g.Machine; m != nil && g.State == "running" && g.Held == "" {
			if words := machineWords(*m); words != "" {
				find(nagiosWarning, "%s: %s", g.Name, words)
			}
		}
	}
	if t := s.Trial; t != nil {
		find(nagiosWarning, "revision %d %s", s.Revision, trialLine(*t))
	}
	for _, w := range s.Waiting {
		find(nagiosWarning, "%s: %s", w.Step.Object, w.Step.Reason)
	}
	if s.Pending != "" {
		find(nagiosWarning, "%s", s.Pending)
	}
	return level, findings
}
