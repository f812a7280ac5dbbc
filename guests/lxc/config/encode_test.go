package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/golden"
)

// stored is an image read from a store of one, so that its paths are those of a store.
func stored(t testing.TB, dir, text string) image.Image {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "web-0123456789ab"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web-0123456789ab", "image.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	i, err := image.Store{Dir: dir}.Get("web-0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func container(t testing.TB) (Container, string) {
	t.Helper()
	dir := t.TempDir()
	img := stored(t, dir, `{"id": "web-0123456789ab", "name": "web", "kind": "lxc", "command": ["/usr/sbin/nginx", "-g", "daemon off;"],
		"halt": "SIGQUIT", "capabilities": ["net_raw", "chown"]}`)
	return Container{
		Spec: guests.Spec{
			Name: "www-1", Driver: policy.DriverLXC, Image: img.ID, Hostname: "www-1.example.org", Memory: 256 << 20, CPUs: 2, PIDs: 1024,
		},
		Dir: "/var/lib/bladenet/lxc/www-1", Image: img, Namespace: "/run/bladenet/netns/www-1", AppArmor: "unconfined", FirstID: 1 << 30,
	}, dir
}

func TestEncode(t *testing.T) {
	c, dir := container(t)
	got := bytes.ReplaceAll(Encode(c), []byte(dir), []byte("/images"))
	// The digest in the first line covers the path of this run's store.
	_, got, _ = bytes.Cut(got, []byte("\n"))
	golden.Check(t, "container.conf", got)
	c.Privileged, c.FirstID = true, 0
	_, got, _ = bytes.Cut(bytes.ReplaceAll(Encode(c), []byte(dir), []byte("/images")), []byte("\n"))
	golden.Check(t, "privileged.conf", got)
	golden.Check(t, "seccomp", Seccomp())
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	c, _ := container(t)
	for _, change := range []func(*Container){
		func(*Container) {},
		func(c *Container) { c.Memory, c.CPUs = 0, 0 },
		func(c *Container) { c.Hostname = "a" },
		func(c *Container) { c.IOWeight, c.Disk = 300, 1<<30 },
		func(c *Container) { c.Privileged, c.FirstID = true, 0 },
		func(c *Container) {
			c.VolumesAt = "/var/lib/bladenet/volumes/www-1"
			c.Volumes = []policy.Volume{{Name: "data", Path: "/var/lib/ldap"}, {Name: "pages", Path: "/srv/www", ReadOnly: true}}
		},
	} {
		c := c
		change(&c)
		text := Encode(c)
		got, stale, err := Decode(text)
		if err != nil || stale {
			t.Errorf("stale %v, %v", stale, err)
		}
		if diff := cmp.Diff(c.Spec, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, edit := range []string{"\nlxc.cap.drop =", "\nlxc.hook.start-host = /bin/true\n"} {
			edited := bytes.Replace(text, []byte("\nlxc.autodev"), []byte(edit+"\nlxc.autodev"), 1)
			if _, stale, _ := Decode(edited); !stale {
				t.Errorf("edit %q is not seen", edit)
			}
		}
		if _, stale, _ := Decode(bytes.Replace(text, []byte("# bladenet 2"), []byte("# bladenet 1"), 1)); !stale {
			t.Error("another layout is not seen")
		}
	}
}

func TestEncodeVolumes(t *testing.T) {
	c := Container{VolumesAt: "/var/lib/bladenet/volumes/www-1"}
	c.Privileged = true
	c.Volumes = []policy.Volume{{Name: "data", Path: "/var/lib/ldap"}, {Name: "pages", Path: "/srv/www", ReadOnly: true}}
	var lines []string
	for line := range strings.Lines(string(Encode(c))) {
		if strings.HasPrefix(line, "lxc.mount.entry = ") {
			lines = append(lines, line)
		}
	}
	want := []string{
		"lxc.mount.entry = /var/lib/bladenet/volumes/www-1/data var/lib/ldap none bind,create=dir,nodev,nosuid 0 0\n",
		"lxc.mount.entry = /var/lib/bladenet/volumes/www-1/pages srv/www none bind,create=dir,nodev,nosuid,ro 0 0\n",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecodeBad(t *testing.T) {
	for _, text := range []string{"x\nlxc.cgroup2.memory.max = lots\n", "x\nlxc.cgroup2.cpu.max = max 100000\n"} {
		if _, _, err := Decode([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c, _ := container(f)
	f.Add(Encode(c))
	f.Add([]byte("# bladenet\nlxc.rootfs.path = overlay:a:b\nlxc.uts.name"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, stale, err := Decode(text)
		if err == nil && s.Driver != policy.DriverLXC {
			t.Errorf("driver %q", s.Driver)
		}
		if err == nil && !stale && !bytes.HasPrefix(text, []byte("# bladenet ")) {
			t.Errorf("a file without our first line counts as ours: %q", text)
		}
	})
}
