package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/test/golden"
)

func TestDoctor(t *testing.T) {
	answer := api.Doctor{Version: api.Version, Blade: "b1", Findings: []api.Finding{
		{Check: "kernel", Level: api.Well},
		{Check: "bridge filter", Level: api.Wrong, Message: "it is on", Remedy: "switch it off", Fixable: true, Fixed: true},
		{Check: "conntrack", Level: api.Doubtful, Message: "only 4096\nreally", Remedy: "sysctl -w", Fixable: true},
	}}
	got := ctl(t, daemon(t, map[string]any{"doctor": answer}), "doctor", "-v")
	golden.Check(t, "doctor.txt", got.stdout)
	if got.status != exitOK {
		t.Errorf("status %d of a host whose only error was fixed", got.status)
	}
	answer.Findings[1].Fixed = false
	got = ctl(t, daemon(t, map[string]any{"doctor": answer}), "doctor", "-o", "json")
	golden.Check(t, "doctor.json", got.stdout)
	if got.status != exitError {
		t.Errorf("status %d of a host with an error", got.status)
	}
}

func TestDoctorWithoutADaemon(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	got := ctl(t, none, "doctor", "--policy", "../../test/fleets/one-blade", "--blade", "lame-l1")
	if !strings.Contains(got.stdout, "bladed does not run") || !strings.Contains(got.stdout, "eno1") {
		t.Errorf("doctor:\n%s%s", got.stdout, got.stderr)
	}
	got = ctl(t, none, "doctor", "--policy", "../../test/fleets/one-blade", "--blade", "nobody")
	if !strings.Contains(got.stdout, "nobody") || !strings.Contains(got.stdout, "checks found nothing") {
		t.Errorf("doctor of a host that is no blade:\n%s%s", got.stdout, got.stderr)
	}
}
