package volume

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

// image is a tree with a folder that has something of everything, and links that lead out of it.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, do := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(dir, "var/lib/ldap/sub"), 0o755) },
		func() error { return os.WriteFile(filepath.Join(dir, "var/lib/ldap/data"), []byte("entries"), 0o640) },
		func() error { return os.WriteFile(filepath.Join(dir, "var/lib/ldap/sub/own"), []byte("deep"), 0o600) },
		func() error { return os.Symlink("/etc/passwd", filepath.Join(dir, "var/lib/ldap/link")) },
		func() error { return os.Chmod(filepath.Join(dir, "var/lib/ldap"), 0o750) },
		func() error { return os.Symlink("/etc", filepath.Join(dir, "out")) },
		func() error { return os.Symlink("lib", filepath.Join(dir, "var/same")) },
		func() error { return os.WriteFile(filepath.Join(dir, "file"), nil, 0o644) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// listing is a tree in words.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := info.Mode().String() + " " + name
		if text, err := os.ReadFile(path); err == nil && info.Mode().IsRegular() {
			line += " " + string(text)
		}
		if link, err := os.Readlink(path); err == nil {
			line += " -> " + link
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestANewVolumeIsAsTheImageHasIt(t *testing.T) {
	tree := image(t)
	for path, want := range map[string][]string{
		"/var/lib/ldap":  {"drwxr-x--- .", "-rw-r----- data entries", "Lrwxrwxrwx link -> /etc/passwd", "drwxr-xr-x sub", "-rw------- sub/own deep"},
		"/var/same/ldap": {"drwxr-x--- .", "-rw-r----- data entries", "Lrwxrwxrwx link -> /etc/passwd", "drwxr-xr-x sub", "-rw------- sub/own deep"},
		"/srv/nowhere":   {"drwxr-xr-x ."},
	} {
		s := Store{Dir: filepath.Join(t.TempDir(), "volumes")}
		v := policy.Volume{Name: "data", Path: path}
		if err := s.Make("ldap-1", v, tree); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, listing(t, s.Path("ldap-1", "data"))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		for dir, mode := range map[string]fs.FileMode{s.Dir: 0o700, s.Guest("ldap-1"): 0o711} {
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v, want %v", dir, info.Mode(), err, mode)
			}
		}
	}
}

func TestAVolumeStays(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	v := policy.Volume{Name: "data", Path: "/var/lib/ldap"}
	if err := s.Make("ldap-1", v, image(t)); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(s.Path("ldap-1", "data"), "kept")
	if err := os.WriteFile(kept, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.Guest("ldap-1"), ".half"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Make("ldap-1", v, image(t)); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
	names, err := s.Names("ldap-1")
	if diff := cmp.Diff([]policy.VolumeName{"data"}, names); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := s.Remove("ldap-1"); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Names("ldap-1"); len(names) > 0 || err != nil {
		t.Errorf("after the removal: %v, %v", names, err)
	}
	if err := s.Remove("ldap-1"); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// What an interrupted call left is no volume, and neither is what a wrong tree gives.
func TestNoHalfVolume(t *testing.T) {
	tree := image(t)
	s := Store{Dir: filepath.Join(t.TempDir(), "volumes")}
	for path, want := range map[string]string{"/file": "has a file", "/out": "escapes", "/out/ssl": "escapes"} {
		err := s.Make("a", policy.Volume{Name: "data", Path: path}, tree)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.Guest("a"), ".data", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Names("a"); len(names) > 0 || err != nil {
		t.Errorf("half made: %v, %v", names, err)
	}
	if err := s.Make("a", policy.Volume{Name: "data", Path: "/srv"}, tree); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"drwxr-xr-x ."}, listing(t, s.Path("a", "data"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRemoveStaysBelow(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, name := range []policy.GuestName{"", ".", "..", "../a", "a/b"} {
		if err := s.Remove(name); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
	if _, err := os.Stat(s.Dir); err != nil {
		t.Error(err)
	}
}
