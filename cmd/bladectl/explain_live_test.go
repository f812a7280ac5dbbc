package main

import (
	"strings"
	"testing"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy/filter"
)

func TestExplainLive(t *testing.T) {
	packet := api.TracedPacket{
		In: "vlan111", Out: "dir.0", Packet: "198.18.0.7:40000 -> 203.0.113.10:81 tcp syn", Verdict: "drop", Reason: filter.VIPPort,
		Rule: "not a port of www", Pos: "20-policy.yaml:5:5",
		Steps: []api.TraceStep{{Table: "bridge bladenet", Chain: "deny-vip-port", Rule: "drop", Verdict: "drop"}},
	}
	socket := daemon(t, map[string]any{"trace": []api.Event{{Message: "following packets"}, {Packet: &packet}, {Done: true}}})
	const line = "drop   vlan111 -> dir.0           198.18.0.7:40000 -> 203.0.113.10:81 tcp syn  not a port of www (vip-port)  20-policy.yaml:5:5\n"
	for args, want := range map[string]string{
		"--live 203.0.113.10":         line,
		"--live 203.0.113.10 --steps": line + "         deny-vip-port        drop               drop\n",
	} {
		got := ctl(t, socket, append([]string{"explain"}, strings.Fields(args)...)...)
		if got.status != exitOK || got.stdout != want || got.stderr != "following packets\n" {
			t.Errorf("explain %s: status %d\n%s%s\nwant\n%s", args, got.status, got.stdout, got.stderr, want)
		}
	}
	if got := ctl(t, socket, "explain", "--live", "203.0.113.10", "-o", "json"); !strings.Contains(got.stdout, `"verdict":"drop","reason":"vip-port"`) {
		t.Errorf("as JSON: %s", got.stdout)
	}
	silent := daemon(t, map[string]any{"trace": []api.Event{{Done: true}}})
	if got := ctl(t, silent, "explain", "--live", "www-1"); got.status != exitOK || got.stderr != "no packet of www-1 came by\n" {
		t.Errorf("without a packet: %+v", got)
	}
	failed := daemon(t, map[string]any{"trace": []api.Event{{Done: true, Error: "follow \"x\": neither a VIP"}}})
	if got := ctl(t, failed, "explain", "--live", "x"); got.status != exitError || !strings.Contains(got.stderr, "neither a VIP") {
		t.Errorf("with an error: %+v", got)
	}
	for _, args := range []string{"--live 203.0.113.10 www-1", "198.18.0.7 203.0.113.10", "--live x -o yaml"} {
		if got := ctl(t, socket, append([]string{"explain"}, strings.Fields(args)...)...); got.status != exitUsage {
			t.Errorf("explain %s: status %d, want %d", args, got.status, exitUsage)
		}
	}
}
