package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
)

// unpack reads a bundle: its files without the folder above them.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		out[name] = string(text)
	}
}

const secretive = "alerts:\n  - webhook: https://ops:hunter2@alerts.example.org/hooks/SeCrEt-1\n"

func TestSupportBundle(t *testing.T) {
	demo, err := os.ReadFile("../../test/fleets/one-blade/10-ground.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rest, err := os.ReadFile("../../test/fleets/one-blade/20-policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := []api.File{{Name: "/etc/bladenet/a.yaml", Data: string(demo)}, {Name: "b.yaml", Data: string(rest)}, {Name: "c.yaml", Data: secretive}}
	socket := daemon(t, map[string]any{
		"status":           api.Status{Version: api.Version, Blade: "lame-l1", Revision: 2, Guests: []api.Guest{{Name: "www-1"}}},
		"plan":             api.Plan{Version: api.Version},
		"doctor":           api.Doctor{Findings: []api.Finding{{Check: "alerts", Message: "POST https://alerts.example.org/hooks/SeCrEt-1: EOF"}}},
		"revisions":        api.Revisions{InForce: 2, Revisions: []api.Revision{{Number: 1}, {Number: 2}}},
		"revisions/1":      api.Revision{Number: 1, Files: files},
		"revisions/2":      api.Revision{Number: 2, Files: files},
		"events":           api.Entry{Number: 1, Message: "Authorization: Bearer abcdefghijkl"},
		"guests/www-1/log": "DB_PASSWORD=hunter3",
		"/metrics":         "bladenet_up 1",
	})
	out := filepath.Join(t.TempDir(), "b.tar.gz")
	got := ctl(t, socket, "support-bundle", "--out", out)
	if got.status != exitOK || !strings.Contains(got.stdout, "taken out") {
		t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	have := unpack(t, out)
	for name, want := range map[string]string{
		"status.json": `"lame-l1"`, "plan.json": "v1", "doctor.json": "alerts.example.org/REDACTED", "revisions.json": `"in_force": 2`, "revisions/1/a.yaml": "lombarderie",
		"revisions/2/c.yaml": "webhook: https://alerts.example.org/REDACTED", "events.jsonl": "Bearer REDACTED", "guests/www-1.log": "DB_PASSWORD=REDACTED", "metrics": "bladenet_up",
		"rules.nft": "203.0.113.10", "links": "lo\t", "versions/bladectl": "go", "kernel/version": "Linux", "versions/packages": "",
	} {
		if text, ok := have[name]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s has no %q: %.300q", name, want, text)
		}
	}
	for name, text := range have {
		for _, secret := range []string{"hunter", "SeCrEt", "abcdefghijkl"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s gives %s away: %.300q", name, secret, text)
			}
		}
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle is for everyone: %v %v", info.Mode(), err)
	}
	if got := ctl(t, socket, "support-bundle", "--out", out); got.status != exitError || !strings.Contains(got.stderr, "is there") {
		t.Errorf("over a file that is there: status %d: %s", got.status, got.stderr)
	}
}

// Without a daemon, when it is needed most, the bundle has what is on disk.
func TestSupportBundleWithoutADaemon(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"policy/c.yaml": secretive, "state/journal/1": "{}"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	store, err := revision.Open(dir + "/state/revisions")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Save(revision.Revision{Note: "first", Files: []policy.File{{Name: "/etc/bladenet/p.yaml", Data: []byte("password: hunter2\n")}}}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "b.tar.gz")
	got := ctl(t, filepath.Join(dir, "none"), "support-bundle", "--out", out, "--policy", dir+"/policy", "--state", dir+"/state")
	if got.status != exitOK || !strings.Contains(got.stderr, "does not run here") {
		t.Fatalf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
	have := unpack(t, out)
	for name, want := range map[string]string{
		"policy/c.yaml": "REDACTED", "revisions/1/p.yaml": "password: REDACTED", "revisions/1/revision.json": "first", "journal/1": "{}", "doctor.json": "daemon", "status": "not there: bladed does not run",
	} {
		if text, ok := have[name]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s has no %q: %.300q", name, want, text)
		}
	}
	for name, text := range have {
		if strings.Contains(text, "hunter") || strings.Contains(text, "SeCrEt") {
			t.Errorf("%s gives a secret away: %.300q", name, text)
		}
	}
}
