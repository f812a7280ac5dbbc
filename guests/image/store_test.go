package image

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

func TestSplitID(t *testing.T) {
	for _, id := range []string{
		"", "-", "web", "web-", "-0123456789ab", "web-0123456789a", "web-0123456789abc", "web-0123456789aB", "Web-0123456789ab", "-web-0123456789ab",
		"web--0123456789ab", "../web-0123456789ab", "web/x-0123456789ab", ".remove-web-0123456789ab", strings.Repeat("w", 41) + "-0123456789ab",
	} {
		if name, digest, err := splitID(id); err == nil {
			t.Errorf("%q is taken for %q of %q", id, digest, name)
		}
	}
	for _, want := range []string{"w", "web", "web-server", "a--b", strings.Repeat("w", 40)} {
		if name, digest, err := splitID(want + "-0123456789ab"); err != nil || name != want || digest != "0123456789ab" {
			t.Errorf("%s: %s, %s, %v", want, name, digest, err)
		}
	}
}

// add puts an image into a store as a build would.
func add(t *testing.T, s Store, id string, kind policy.Driver, created time.Time) {
	t.Helper()
	name, _, err := splitID(id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(Image{ID: id, Name: name, Kind: kind, Recipe: "recipe of " + id, Created: created})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.Dir, id, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, id, "image.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func ids(images []Image) (out []string) {
	for _, i := range images {
		out = append(out, i.ID)
	}
	return out
}

// What may go are older builds that no clone stands on, of each name and driver.
func TestUnneeded(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	if got, err := s.Unneeded(nil); err != nil || len(got) > 0 {
		t.Errorf("no store: %v, %v", ids(got), err)
	}
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	add(t, s, "web-aaaaaaaaaaaa", policy.DriverLXC, at)
	add(t, s, "web-bbbbbbbbbbbb", policy.DriverLXC, at.Add(time.Hour))
	add(t, s, "web-cccccccccccc", policy.DriverLXC, at.Add(2*time.Hour))
	add(t, s, "web-dddddddddddd", policy.DriverKVM, at)
	add(t, s, "dns-eeeeeeeeeeee", policy.DriverLXC, at)
	got, err := s.Unneeded(map[string][]string{"web-aaaaaaaaaaaa": {"www-1"}})
	if diff := cmp.Diff([]string{"web-bbbbbbbbbbbb"}, ids(got)); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Directors run no service, and real servers nothing else.
func TestFits(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	add(t, s, "director-cccccccccccc", policy.DriverKVM, time.Now())
	add(t, s, "web-dddddddddddd", policy.DriverKVM, time.Now())
	i, err := s.Get("web-dddddddddddd")
	if err != nil {
		t.Fatal(err)
	}
	i.Command = []string{"/usr/sbin/nginx"}
	text, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(i.Dir(), "image.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   string
		role policy.Role
		want string
	}{
		{"web-dddddddddddd", policy.RoleRealServer, ""},
		{"director-cccccccccccc", policy.RoleDirector, ""},
		{"web-dddddddddddd", policy.RoleDirector, "runs a service"},
		{"director-cccccccccccc", policy.RoleRealServer, "runs no service"},
		{"web-eeeeeeeeeeee", policy.RoleRealServer, "not in the store"},
	} {
		if err := s.Fits(c.id, c.role); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for a %s: %v, want %q", c.id, c.role, err, c.want)
		}
	}
}

func TestStore(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	add(t, s, "web-aaaaaaaaaaaa", policy.DriverLXC, at)
	add(t, s, "web-000000000000", policy.DriverLXC, at.Add(time.Hour))
	add(t, s, "web-big-bbbbbbbbbbbb", policy.DriverLXC, at.Add(2*time.Hour))
	add(t, s, "director-cccccccccccc", policy.DriverKVM, at)
	add(t, s, "web-dddddddddddd", policy.DriverKVM, at.Add(-time.Hour)) // the same for the other driver
	// None of these is an image.
	for _, dir := range []string{".build-web-123", ".remove-web-dddddddddddd", "web", "web-DDDDDDDDDDDD", "web-eeeeeeeeeeee"} {
		if err := os.Mkdir(filepath.Join(s.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"director-cccccccccccc", "web-000000000000", "web-aaaaaaaaaaaa", "web-dddddddddddd", "web-big-bbbbbbbbbbbb"}
	if diff := cmp.Diff(want, ids(images)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		name   string
		driver policy.Driver
		want   string
		err    string
	}{
		{"web", policy.DriverLXC, "web-000000000000", ""},
		{"web-big", policy.DriverLXC, "web-big-bbbbbbbbbbbb", ""},
		{"director", policy.DriverKVM, "director-cccccccccccc", ""},
		{"director", policy.DriverLXC, "", "is for kvm guests, this one is lxc: bladectl image build director"},
		{"web", policy.DriverKVM, "web-dddddddddddd", ""},
		{"dns", policy.DriverLXC, "", `image "dns" is not in the store ` + s.Dir + `: bladectl image build dns`},
	} {
		got, err := s.Resolve(c.name, c.driver)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("resolve %s for %s: %q, %v; want %q, %q", c.name, c.driver, got, err, c.want, c.err)
		}
	}
	if i, ok, err := s.byRecipe("web", "recipe of web-aaaaaaaaaaaa"); err != nil || !ok || i.ID != "web-aaaaaaaaaaaa" {
		t.Errorf("by recipe: %v, %v, %v", i.ID, ok, err)
	}
	if _, ok, err := s.byRecipe("web", "another"); err != nil || ok {
		t.Errorf("by another recipe: %v, %v", ok, err)
	}
}

func TestStoreThatIsNotThere(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "none")}
	if images, err := s.List(); err != nil || len(images) > 0 {
		t.Errorf("list: %v, %v", images, err)
	}
	if _, err := s.Latest("web", policy.DriverLXC); err == nil || !strings.Contains(err.Error(), "bladectl image build web") {
		t.Errorf("latest: %v", err)
	}
}

func TestGetBad(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, id := range []string{"", "web", "../web-000000000000", "web-00000000000", "web-000000000000/..", "-000000000000"} {
		if _, err := s.Get(id); err == nil {
			t.Errorf("%q: no error", id)
		}
	}
	for id, text := range map[string]string{"web-000000000001": "{", "web-000000000002": `{"id": "web-000000000003"}`} {
		if err := os.Mkdir(filepath.Join(s.Dir, id), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, id, "image.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(id); err == nil {
			t.Errorf("%s holding %s: no error", id, text)
		}
	}
}

func TestRemove(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "images")}
	clones := filepath.Join(t.TempDir(), "lxc")
	const id = "web-aaaaaaaaaaaa"
	add(t, s, id, policy.DriverLXC, time.Now())
	for _, guest := range []string{"www-2", "www-1"} {
		if err := os.MkdirAll(filepath.Join(clones, guest), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(clones, guest, MarkFile), []byte(id+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	used, err := Used(clones, filepath.Join(clones, "none"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{id: {"www-1", "www-2"}}, used); diff != "" {
		t.Errorf("used (-want +got):\n%s", diff)
	}
	if err := s.Remove(id, used); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "www-1, www-2") {
		t.Errorf("remove in use: %v", err)
	}
	if _, err := s.Get(id); err != nil {
		t.Errorf("after a refused removal: %v", err)
	}
	if err := s.Remove(id, nil); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, id := range []string{id, "../lxc", "web", ""} {
		if err := s.Remove(id, nil); err == nil {
			t.Errorf("remove %q: no error", id)
		}
	}
	if _, err := os.Stat(clones); err != nil {
		t.Error(err)
	}
}
