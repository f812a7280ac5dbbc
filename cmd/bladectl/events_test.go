package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
)

// journalDaemon answers for the journal: entries after a number, and with follow one more.
func journalDaemon(t *testing.T, entries []api.Entry) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		enc := json.NewEncoder(w)
		if r.FormValue("follow") != "" {
			_ = enc.Encode(api.Entry{Number: 9, Time: entries[0].Time, Kind: api.Agent, Message: "after " + r.FormValue("after")})
			return
		}
		for _, e := range entries {
			_ = enc.Encode(e)
		}
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
	return socket
}

func TestEvents(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	socket := journalDaemon(t, []api.Entry{
		{Number: 1, Time: at, Kind: api.Agent, Revision: 3, Message: "bladed begins"},
		{Number: 2, Time: at, Kind: api.Revised, Revision: 4, Message: "in force: second shop"},
		{Number: 3, Time: at, Kind: api.Applied, Revision: 4, Subsystem: "links", Verb: plan.Create, Object: "veth www-1.0", Guest: "www-1", Message: "mtu 1500"},
		{Number: 4, Time: at, Kind: api.Repaired, Subsystem: "inside", Verb: plan.Create, Object: "address 203.0.113.10/32 on lo", Guest: "www-1"},
		{Number: 5, Time: at, Kind: api.IsWaiting, Subsystem: "filter", Object: "filter", Message: "one\ntwo"},
		{Number: 6, Time: at, Kind: api.GuestIs, Guest: "www-1", Message: "running -> stopped"},
	})
	golden.Check(t, "events.txt", ctl(t, socket, "events").stdout)
	golden.Check(t, "events.json", ctl(t, socket, "events", "-o", "json", "-n", "2").stdout)
	golden.Check(t, "events.yaml", ctl(t, socket, "events", "-o", "yaml", "--kind", "guest,revision").stdout)
	got := ctl(t, socket, "events", "--follow", "-n", "1")
	if !strings.Contains(got.stdout, "after 6") || !strings.Contains(got.stderr, "bladed has ended") || got.status != exitError {
		t.Errorf("events --follow: status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
}

func TestNagios(t *testing.T) {
	well := api.Status{Revision: 7, Converged: true, Guests: []api.Guest{{Name: "www-1", State: "running"}}, Services: []api.Service{{Service: "www", Up: true}}}
	with := func(change func(*api.Status)) api.Status {
		s := well
		s.Guests = slices.Clone(s.Guests)
		change(&s)
		return s
	}
	for _, c := range []struct {
		name   string
		status api.Status
		exit   int
		want   string
	}{
		{"well", well, 0, "BLADENET OK - revision 7, 1 guests, 1 services | waiting=0 guests=1 running=1 vip_conntrack=0\n"},
		{"waiting", with(func(s *api.Status) {
			s.Waiting = []api.Waiting{{Step: plan.Step{Object: "vlan vlan111", Reason: "no trunk | at all\nreally"}}}
		}), 1, "BLADENET WARNING - vlan vlan111: no trunk / at all | waiting=1 "},
		{"on trial", with(func(s *api.Status) { s.Trial = &api.Trial{Back: 6} }), 1, "revision 7 is being verified"},
		{"tracked", with(func(s *api.Status) { s.Filter.VIPConntrack = 2 }), 2, "CRITICAL - 2 VIP connections are tracked"},
		{"no revision", api.Status{}, 2, "CRITICAL - no revision"},
		{"guest", with(func(s *api.Status) { s.Guests = []api.Guest{{Name: "www-1", State: "absent"}}; s.Pending = "edited" }), 2, "CRITICAL - www-1 is absent; edited |"},
		{"machine", with(func(s *api.Status) {
			s.Guests[0].Machine = &api.Machine{Answering: true, InForce: true, Ended: "exit status 1"}
		}), 1, "WARNING - www-1: its service does not run: exit status 1 |"},
		{"machine that is well", with(func(s *api.Status) {
			s.Guests[0].Machine = &api.Machine{Answering: true, InForce: true, Running: true}
		}), 0, "BLADENET OK"},
		{"unheard", with(func(s *api.Status) {
			lost := []api.Destination{{Guest: "www-2", Up: true, Unheard: true}, {Guest: "www-1", Up: true}}
			s.Services = []api.Service{{Service: "www", VIP: "v", Up: true, Destinations: lost}, {Service: "www", VIP: "w", Up: true, Destinations: lost}}
		}), 1, "WARNING - 1 real servers are well and not heard from a VIP: www-2 |"},
		{"service", with(func(s *api.Status) { s.Services = []api.Service{{Service: "www", VIP: "v", Director: "d1"}} }), 2, "www at v 0/ is down on d1"},
	} {
		got := ctl(t, daemon(t, map[string]any{"status": c.status}), "status", "--nagios")
		if got.status != c.exit || !strings.Contains(got.stdout, c.want) || strings.Count(got.stdout, "\n") != 1 || got.stderr != "" {
			t.Errorf("%s: status %d, want %d and %q:\n%s%s", c.name, got.status, c.exit, c.want, got.stdout, got.stderr)
		}
	}
	got := ctl(t, filepath.Join(t.TempDir(), "none"), "status", "--nagios")
	if got.status != 2 || !strings.HasPrefix(got.stdout, "BLADENET CRITICAL - bladed does not run here") {
		t.Errorf("without a daemon: status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
}
