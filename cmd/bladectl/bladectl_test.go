package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
	"github.com/bladenet/bladenet/test/pki"
)

// result is what one run of bladectl left.
type result struct {
	status         int
	stdout, stderr string
}

func ctl(t *testing.T, socket string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(key string) string { return map[string]string{"BLADENET_SOCKET": socket}[key] }
	code := run(t.Context(), env{stdout: &stdout, stderr: &stderr, getenv: getenv}, args)
	return result{code, stdout.String(), stderr.String()}
}

// daemon answers the API on a socket of its own.
func daemon(t *testing.T, answers map[string]any) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[strings.TrimPrefix(r.URL.Path, "/v1/")]
		if !ok {
			http.Error(w, "no such verb", http.StatusNotFound)
			return
		}
		events, many := answer.([]api.Event)
		if !many {
			_ = json.NewEncoder(w).Encode(answer)
			return
		}
		for _, e := range events {
			_ = json.NewEncoder(w).Encode(e)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return socket
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"", exitOK, "spawn"},
		{"help", exitOK, "destroy"},
		{"plan --help", exitOK, "example:"},
		{"plann", exitUsage, `unknown verb "plann"`},
		{"status now", exitUsage, "usage: bladectl status"},
		{"status -o xml", exitUsage, "text, json or yaml"},
		{"status --nosuch", exitUsage, "nosuch"},
		{"spawn realserver", exitUsage, "usage: bladectl spawn"},
		{"spawn router r1", exitError, "a director or a realserver"},
		{"spawn realserver R1", exitError, "lower-case"},
		{"spawn realserver r1 --count 0", exitError, "from 1 to 256"},
		{"destroy -x-", exitUsage, "usage"},
		{"image build nosuch", exitError, "there are director"},
		{"image build --driver lxc director", exitError, "for kvm guests only"},
		{"image burn", exitError, "build, list, remove or prune"},
		{"status", exitError, "systemctl start bladed"},
	} {
		got := ctl(t, filepath.Join(t.TempDir(), "none"), strings.Fields(c.args)...)
		if got.status != c.status || !strings.Contains(got.stdout+got.stderr, c.want) {
			t.Errorf("bladectl %s: status %d, want %d and a word on %q:\n%s%s", c.args, got.status, c.status, c.want, got.stdout, got.stderr)
		}
	}
}

func TestEveryVerbHasAnExample(t *testing.T) {
	for _, v := range verbs() {
		if v.example == "" || !strings.HasPrefix(v.example, "bladectl "+v.name) || v.brief == "" {
			t.Errorf("%s: example %q, brief %q", v.name, v.example, v.brief)
		}
	}
}

func TestCheckShowsEveryMistakeWithItsPlace(t *testing.T) {
	dir := t.TempDir()
	text := "zones: [public]\nsites: [paris]\nblades:\n  b1: {site: pari, zone: public, trunk: eno1, color: red}\n"
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := ctl(t, "", "check", dir)
	for _, want := range []string{"a.yaml:4:14", "a.yaml:4:47", "^"} {
		if got.status != exitError || !strings.Contains(got.stdout, want) {
			t.Errorf("check: status %d, want %d and %q:\n%s", got.status, exitError, want, got.stdout)
		}
	}
}

func TestCheckOfTheDemosFleet(t *testing.T) {
	got := ctl(t, "", "check", "../../test/fleets/one-blade")
	if got.status != exitOK || !strings.Contains(got.stdout, "3 expectations hold") {
		t.Errorf("check: status %d:\n%s%s", got.status, got.stdout, got.stderr)
	}
}

var steps = []plan.Step{
	{Subsystem: "links", Verb: plan.Create, Object: "veth www-1.0", Guest: "www-1", Detail: []string{"mtu 1500"}},
	{Subsystem: "guests", Verb: plan.Blocked, Object: "container www-1", Guest: "www-1", Reason: "image web is not in the store"},
}

func TestPlan(t *testing.T) {
	socket := daemon(t, map[string]any{"plan": api.Plan{Version: api.Version, Blade: "b1", Revision: 3, Steps: steps}})
	for _, c := range []struct {
		args   []string
		status int
		golden string
	}{
		{[]string{"plan"}, exitOK, "plan.txt"},
		{[]string{"plan", "--exit-code"}, exitChanges, "plan.txt"},
		{[]string{"plan", "-o", "json"}, exitOK, "plan.json"},
		{[]string{"plan", "-o", "yaml"}, exitOK, "plan.yaml"},
	} {
		got := ctl(t, socket, c.args...)
		if got.status != c.status {
			t.Errorf("%v: status %d, want %d: %s", c.args, got.status, c.status, got.stderr)
		}
		golden.Check(t, c.golden, got.stdout)
	}
}

// A note is for people: it is no change that waits.
func TestPlanNotes(t *testing.T) {
	socket := daemon(t, map[string]any{"plan": api.Plan{Version: api.Version, Blade: "b1", Notes: []string{"www-1 stands on web-0"}}})
	got := ctl(t, socket, "plan", "--exit-code")
	if want := "nothing to do\nnote: www-1 stands on web-0\n"; got.status != exitOK || string(got.stdout) != want {
		t.Errorf("status %d, %q, want %q", got.status, got.stdout, want)
	}
}

func TestStatus(t *testing.T) {
	s := api.Status{
		Version: api.Version, Blade: "b1", Site: "paris", Zone: "public", Trunk: "eno1", Revision: 3, Pending: "the policy folder differs",
		Waiting: []api.Waiting{{Step: steps[1], Error: "first\nsecond", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}},
		Links: []api.Link{
			{Bridge: "br111", VLAN: 111, Network: "uplink", Uplink: "vlan111", Ports: []api.Port{}},
			{Bridge: "br120", VLAN: 120, Network: "service", Uplink: "vlan120", Ports: []api.Port{
				{Name: "d1.1", Guest: "d1", Interface: "eth1", MAC: policy.MAC{2, 0, 0, 0, 0, 1}, Up: true},
				{Name: "www-1.1", Guest: "www-1", Interface: "eth1", MAC: policy.MAC{2, 0, 0, 0, 0, 2}},
			}},
		},
		Guests: []api.Guest{
			{Name: "d1", Role: "director", Driver: "kvm", Image: "director", State: "running", Addresses: []string{"192.0.2.2"}, Director: &api.Director{Answering: true, InForce: true, Neighbors: 2}},
			{Name: "www-1", Role: "realserver", Driver: "lxc", Image: "web", State: "absent", Addresses: []string{"198.51.100.11"}},
		},
		Services: []api.Service{{
			Director: "d1", Service: "www", VIP: "203.0.113.10", Protocol: "tcp", Port: 80, Up: true, Announced: true,
			Destinations: []api.Destination{{Guest: "www-1", Weight: 0, Reason: "connection refused"}, {Guest: "www-2", Weight: 100, Up: true}},
		}},
		Filter: api.Filter{Dropped: map[string]uint64{"spoof-mac": 3, "vip-arp": 0}, Ports: map[string]map[string]uint64{"www-1.0": {"spoof-mac": 2}, "www-1.1": {"spoof-mac": 1}}},
	}
	socket := daemon(t, map[string]any{"status": s})
	golden.Check(t, "status.txt", ctl(t, socket, "status").stdout)
	golden.Check(t, "status.json", ctl(t, socket, "status", "-o", "json").stdout)
}

func TestApplyTellsAStory(t *testing.T) {
	socket := daemon(t, map[string]any{"apply": []api.Event{
		{Elapsed: 10 * time.Millisecond, Message: "revision 4 in force"},
		{Elapsed: 1500 * time.Millisecond, Took: time.Second, Step: &steps[0]},
		{Elapsed: 1600 * time.Millisecond, Done: true, Message: "done"},
	}})
	got := ctl(t, socket, "apply")
	golden.Check(t, "apply.stderr", got.stderr)
	golden.Check(t, "apply.stdout", got.stdout)
}

func TestRevisions(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	socket := daemon(t, map[string]any{
		"revisions": api.Revisions{Version: api.Version, InForce: 3, Revisions: []api.Revision{
			{Number: 1, Time: at, Note: "policy folder at first start", State: api.Followed, Services: 1},
			{Number: 2, Time: at.Add(time.Hour), Note: "second shop", State: api.LeftAgain, Reason: "it does not verify:\n! filter", Guests: -1},
			{Number: 3, Time: at.Add(2 * time.Hour), Note: "return from 2 to 1", State: api.OnTrial, Guests: 12, Services: 3},
		}},
		"revisions/2": api.Revision{Number: 2, Time: at, State: api.LeftAgain, Note: "second shop", Files: []api.File{{Name: "/etc/bladenet/a.yaml", Data: "zones: [a]\n"}}},
		"confirm":     api.Confirmed{Version: api.Version, Revision: 3},
		"rollback":    []api.Event{{Message: "revision 4 in force"}, {Done: true, Message: "done"}},
	})
	golden.Check(t, "revisions.txt", ctl(t, socket, "revisions").stdout)
	golden.Check(t, "revisions.json", ctl(t, socket, "revisions", "-o", "json").stdout)
	golden.Check(t, "revision.txt", ctl(t, socket, "revisions", "2").stdout)
	dir := filepath.Join(t.TempDir(), "out")
	for range 2 {
		ctl(t, socket, "revisions", "2", "--write", dir)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "a.yaml")); err != nil || string(text) != "zones: [a]\n" {
		t.Errorf("--write wrote %q (%v)", text, err)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"confirm", exitOK, "revision 3 is confirmed"},
		{"confirm x", exitError, "bladectl revisions"},
		{"rollback", exitOK, "done"},
		{"rollback 0", exitError, "a number"},
		{"revisions --write " + dir, exitError, "of which revision"},
		{"revisions 2 --write " + dir, exitError, "exists"},
		{"plan --revision 2 " + dir, exitError, "not both"},
	} {
		got := ctl(t, socket, strings.Fields(c.args)...)
		if got.status != c.status || !strings.Contains(got.stdout+got.stderr, c.want) {
			t.Errorf("bladectl %s: status %d, want %d and %q:\n%s%s", c.args, got.status, c.status, c.want, got.stdout, got.stderr)
		}
	}
}

func TestApplyOfABrokenPolicySaysSoOnce(t *testing.T) {
	found := policy.Diagnostics{{Severity: policy.SeverityError, Pos: policy.Pos{File: "a.yaml", Line: 2, Col: 3}, Message: "no such site"}}
	socket := daemon(t, map[string]any{"apply": []api.Event{{Diagnostics: found}, {Done: true, Error: "the policy has mistakes"}}})
	got := ctl(t, socket, "apply")
	if got.status != exitError || !strings.Contains(got.stdout, "a.yaml:2:3: error: no such site") || got.stderr != "" {
		t.Errorf("apply: status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
}

const nantes = "../../policy/testdata/fleets/nantes"

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		golden, args string
	}{
		{"explain-vip.txt", "203.0.113.130 203.0.113.53 53/udp"},
		{"explain-admin.txt", "203.0.113.241 www-l1 22/tcp"},
		{"explain-drop.txt", "www-l1 198.18.0.7 25/tcp"},
		{"explain-spoof.txt", "www-l1 198.18.0.7 40000/tcp --as 203.0.113.11 --source-port 443 --flags ack"},
		{"explain-nowhere.txt", "198.18.0.7 203.0.113.99 25/tcp"},
		{"explain-mistake.txt", "wwwl1 198.18.0.7 25/tcp"},
	} {
		got := ctl(t, "", append([]string{"explain", "--policy", nantes}, strings.Fields(c.args)...)...)
		golden.Check(t, c.golden, got.stdout+got.stderr)
	}
}

func TestRender(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"rules lame-l1", "table bridge bladenet {"},
		{"links lame-l1", "ip link add br120"},
		{"director dir-pub-l", "-A -t 203.0.113.10:80 -s mh"},
		{"announce dir-pub-l", "router ospf"},
		{"announce dir-pub-c", "router bgp 64512"},
	} {
		got := ctl(t, "", append([]string{"render", "--policy", nantes}, strings.Fields(c.args)...)...)
		if got.status != exitOK || !strings.Contains(got.stdout, c.want) {
			t.Errorf("render %s: status %d, want %q in:\n%s%s", c.args, got.status, c.want, got.stdout, got.stderr)
		}
	}
	for args, want := range map[string]string{"director nobody": "dir-pub-l", "rules nobody": "nobody", "paint lame-l1": "rules, links", "guests lame-l1": "bladectl image build"} {
		got := ctl(t, "", append([]string{"render", "--policy", nantes}, strings.Fields(args)...)...)
		if got.status != exitError || !strings.Contains(got.stderr, want) {
			t.Errorf("render %s: status %d, want a word on %q: %s", args, got.status, want, got.stderr)
		}
	}
}

func TestRenderGuests(t *testing.T) {
	store := t.TempDir()
	for name, kind := range map[string]string{"director": "kvm", "web": "lxc"} {
		id := name + "-0123456789ab"
		if err := os.Mkdir(filepath.Join(store, id), 0o755); err != nil {
			t.Fatal(err)
		}
		text := `{"id": "` + id + `", "name": "` + name + `", "kind": "` + kind + `", "command": [` + map[string]string{"web": `"/sbin/init"`}[name] + `]}`
		if err := os.WriteFile(filepath.Join(store, id, "image.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][]string{
		"dir-pub-l": {"<domain", "dir-pub-l.0"},
		"www-l1":    {"lxc.namespace.share.net = /run/bladenet/netns/www-l1"},
		"lame-l1":   {"dir-pub-l.1", "netns/www-l1", "netns/cas-l1"},
	} {
		got := ctl(t, "", "render", "--policy", nantes, "--store", store, "guests", name)
		for _, w := range want {
			if got.status != exitOK || !strings.Contains(got.stdout, w) {
				t.Errorf("render guests %s: status %d, want %q in:\n%s%s", name, got.status, w, got.stdout, got.stderr)
			}
		}
	}
}

func TestInitThenCheckThenFmt(t *testing.T) {
	dir := t.TempDir()
	if got := ctl(t, "", "init", dir); got.status != exitOK {
		t.Fatalf("init: %s", got.stderr)
	}
	if got := ctl(t, "", "check", dir); got.status != exitOK {
		t.Errorf("check of what init wrote: %s", got.stdout)
	}
	if got := ctl(t, "", "init", dir); got.status != exitError || !strings.Contains(got.stderr, "policy already") {
		t.Errorf("a second init: status %d %s", got.status, got.stderr)
	}
	path := filepath.Join(dir, "z.yaml")
	if err := os.WriteFile(path, []byte("zones:   [ other ]   # why\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ctl(t, "", "fmt", "--diff-only", path); got.status != exitError || !strings.Contains(got.stdout, "z.yaml") {
		t.Errorf("fmt --diff-only: status %d %s", got.status, got.stdout)
	}
	if got := ctl(t, "", "fmt", dir); got.status != exitOK {
		t.Errorf("fmt: %s", got.stderr)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "zones: [other]  # why\n" {
		t.Errorf("fmt wrote %q (%v)", text, err)
	}
}

func TestFmtOfAMistakeChangesNothing(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": "zones:   [a]\n", "b.yaml": "zones: [\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := ctl(t, "", "fmt", dir); got.status != exitError || !strings.Contains(got.stderr, "b.yaml:") {
		t.Errorf("fmt: status %d %s", got.status, got.stderr)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "a.yaml")); string(text) != "zones:   [a]\n" {
		t.Errorf("fmt changed a.yaml to %q", text)
	}
}

// TestAnotherBlade asks a daemon over TLS, by flags and by the environment.
func TestAnotherBlade(t *testing.T) {
	blades, people := pki.New(t), pki.New(t)
	own, mine := blades.Issue(t, t.TempDir(), "blades", time.Hour), people.Issue(t, t.TempDir(), api.Writers, time.Hour)
	l, err := hostagent.ListenTLS("127.0.0.1:0", hostagent.Certificates{Cert: own.Cert, Key: own.Key, ClientCA: people.File})
	if err != nil {
		t.Fatal(err)
	}
	var heard api.SpawnRequest
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&heard)
		_ = json.NewEncoder(w).Encode(api.Event{Done: true, Message: "done"})
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	files := []string{"--cert", mine.Cert, "--key", mine.Key, "--ca", blades.File}
	args := append([]string{"spawn", "realserver", "www-1", "--service", "www", "--blade", "b2", "--address", l.Addr().String()}, files...)
	if got := ctl(t, "", args...); got.status != exitOK || heard.Blade != "b2" {
		t.Errorf("status %d, asked for a guest on %q: %s%s", got.status, heard.Blade, got.stdout, got.stderr)
	}
	var stdout, stderr bytes.Buffer
	getenv := func(key string) string {
		return map[string]string{"BLADENET_ADDRESS": l.Addr().String(), "BLADENET_CERT": mine.Cert, "BLADENET_KEY": mine.Key, "BLADENET_CA": blades.File}[key]
	}
	if code := run(t.Context(), env{stdout: &stdout, stderr: &stderr, getenv: getenv}, []string{"apply"}); code != exitOK {
		t.Errorf("status %d: %s%s", code, &stdout, &stderr)
	}
	if got := ctl(t, "", "status", "--address", l.Addr().String()); got.status != exitError || !strings.Contains(got.stderr, "--cert, --key and --ca") {
		t.Errorf("without files: status %d: %s", got.status, got.stderr)
	}
}
