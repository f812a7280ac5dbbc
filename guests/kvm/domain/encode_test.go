package domain

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

func machine(t testing.TB) (Machine, string) {
	t.Helper()
	dir := t.TempDir()
	const id = "director-0123456789ab"
	if err := os.Mkdir(filepath.Join(dir, id), 0o755); err != nil {
		t.Fatal(err)
	}
	text := `{"id": "` + id + `", "name": "director", "kind": "kvm", "cmdline": "console=ttyS0 root=/dev/vda init=/sbin/bladeguest", "disk_size": 536870912}`
	if err := os.WriteFile(filepath.Join(dir, id, "image.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := image.Store{Dir: dir}.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return Machine{
		Spec: guests.Spec{
			Name: "dir-pub-l", Driver: policy.DriverKVM, Image: id, Memory: 512 << 20, CPUs: 2, CID: 1001,
			Ports: []guests.Port{{Name: "dir-pub-l.0", MAC: policy.MAC{2, 0, 0, 0, 0, 1}}, {Name: "dir-pub-l.1", MAC: policy.MAC{2, 0, 0, 0, 0, 2}}},
		},
		Dir: "/var/lib/bladenet/kvm/dir-pub-l", Image: img,
	}, dir
}

func TestEncode(t *testing.T) {
	m, dir := machine(t)
	emulated := m
	emulated.Emulated, emulated.Ports, emulated.CID = true, nil, 0
	for name, m := range map[string]Machine{"domain.xml": m, "domain-emulated.xml": emulated} {
		got, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, name, bytes.ReplaceAll(got, []byte(dir), []byte("/images")))
	}
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	m, _ := machine(t)
	for _, change := range []func(*Machine){
		func(*Machine) {},
		func(m *Machine) { m.Ports, m.CID = nil, 0 },
		func(m *Machine) { m.Emulated = true },
	} {
		m := m
		change(&m)
		text, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		got, ours, stale, err := Decode(text)
		if err != nil || !ours || stale {
			t.Errorf("ours %v, stale %v, %v", ours, stale, err)
		}
		if diff := cmp.Diff(m.Spec, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		old := bytes.Replace(text, []byte(`layout="1"`), []byte(`layout="0"`), 1)
		if _, ours, stale, err := Decode(old); err != nil || !ours || !stale {
			t.Errorf("another layout: ours %v, stale %v, %v", ours, stale, err)
		}
	}
}

// What looks like ours and is not: another namespace, another place, another guest's mark.
func TestForeignMarks(t *testing.T) {
	for what, text := range map[string]string{
		"no metadata":       `<domain><name>a</name></domain>`,
		"other namespace":   `<domain><name>a</name><metadata><guest xmlns="https://example.org" name="a" layout="1"/></metadata></domain>`,
		"no namespace":      `<domain><name>a</name><metadata><guest name="a" layout="1"/></metadata></domain>`,
		"deeper":            `<domain><name>a</name><metadata><x><b:guest xmlns:b="` + namespace + `" name="a" layout="1"/></x></metadata></domain>`,
		"elsewhere":         `<domain><name>a</name><devices><b:guest xmlns:b="` + namespace + `" name="a" layout="1"/></devices></domain>`,
		"a copy under name": `<domain><name>a</name><metadata><b:guest xmlns:b="` + namespace + `" name="b" layout="1"/></metadata></domain>`,
		"foreign beside": `<domain><name>a</name><metadata><guest xmlns="https://example.org" name="a" layout="1"/>` +
			`<b:guest xmlns:b="` + namespace + `" name="b" layout="1"/></metadata></domain>`,
	} {
		s, ours, _, err := Decode([]byte(text))
		if err != nil || ours || s.Name != "a" {
			t.Errorf("%s: %+v, ours %v, %v", what, s, ours, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	m, _ := machine(f)
	text, err := Encode(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`<domain type='kvm' id='3'><name>a</name><memory unit='MiB'>1</memory></domain>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, ours, _, err := Decode(text)
		if err == nil && ours && !bytes.Contains(text, []byte("bladenet")) && !bytes.Contains(text, []byte("&")) {
			t.Errorf("ours without our mark: %q", text)
		}
	})
}

func TestIdentity(t *testing.T) {
	a, b := identity("a"), identity("b")
	if a == b || a != identity("a") {
		t.Errorf("%s and %s", a, b)
	}
	if len(a) != 36 || a[14] != '8' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("%s is no UUID of version 8", a)
	}
}
