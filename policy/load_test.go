package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "sites: [s]\n", "a.yml": "zones: [z]\n", "c.txt": "no", ".hidden.yaml": "no", "d.yaml~": "no",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "e.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []File{{filepath.Join(dir, "a.yml"), []byte("zones: [z]\n")}, {filepath.Join(dir, "b.yaml"), []byte("sites: [s]\n")}}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadDirRefuses(t *testing.T) {
	empty, large, special := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(large, "a.yaml"), make([]byte, mostFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.DevNull, filepath.Join(special, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		empty: "no *.yaml file", large: "more than 8388608 bytes", special: "not a regular file", filepath.Join(empty, "x"): "no such file",
	} {
		if _, err := ReadDir(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", dir, err, want)
		}
	}
}

// TestAccepted loads texts that look odd and mean something.
func TestAccepted(t *testing.T) {
	cases := map[string]string{
		"empty":              "",
		"comments only":      "# nothing\n\n  # more\n",
		"documents":          "zones: [a]\n---\nzones: [b]\n---\n# nothing\n---\nsites: [c]\n...\n",
		"CRLF and a mark":    "\ufeffzones: [a]\r\nsites:\r\n  - b\r\n",
		"JSON":               "{\"zones\": [\"a\"],\n\t\"sites\": [\"b\"], \"alerts\": [{\"webhook\": \"http://h/\"}]}",
		"anchors":            "zones: &z [a]\nsites: *z\n",
		"sections left open": "zones: [a]\nsites: []\nnetworks:\nrules: {}\nalerts:\nexpect:\n",
		"a NIC of 15 bytes":  "zones: [a]\nsites: [b]\nblades: {c: {site: b, zone: a, trunk: enp129s0f0np0.1}}\n",
		"merge keys":         "zones: [a]\nsites: [b]\nblades:\n  c: &c {site: b, zone: a, trunk: x}\n  d: {<<: *c, trunk: y}\n",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			if _, ds := Load([]File{{Name: "a.yaml", Data: []byte(text)}}); len(ds) > 0 {
				t.Errorf("%s", ds)
			}
		})
	}
}

func TestMergeKeyKeepsWhatIsWritten(t *testing.T) {
	f, ds := Load([]File{{Name: "a.yaml", Data: []byte("zones: [a]\nsites: [b]\nblades:\n  c: &c {site: b, zone: a, trunk: x, management: m}\n  d: {<<: *c, trunk: y}\n")}})
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	if b := f.Blade("d"); b.Trunk != "y" || b.Management != "m" || b.Site != "b" {
		t.Errorf("%+v", b)
	}
}

// TestDefaults reads the least that an operator can write, and what it means.
func TestDefaults(t *testing.T) {
	f, ds := Load([]File{{Name: "a.yaml", Data: []byte(`
zones: [z]
sites: [s]
networks:
  up: {zone: z, role: uplink, vlan: 1, subnets: [192.0.2.0/28], routers: [192.0.2.1]}
  ret: {zone: z, role: return, vlan: 2, subnets: [198.51.100.0/28], routers: [198.51.100.1]}
  svc: {zone: z, role: service, vlan: 3, subnets: [10.0.0.0/24]}
blades: {b: {site: s, zone: z, trunk: t}}
services: {w: {zone: z, vips: [203.0.113.1], ports: [53/udp, 443/tcp, 80/tcp]}}
directors: {d: {blade: b, eth0: {network: up, addresses: [192.0.2.2]}, eth1: {network: svc, addresses: [10.0.0.2]}, announce: {ospf: {}}}}
realservers: {r: {blade: b, image: i, serves: {w: }, eth0: {network: ret, addresses: [198.51.100.2]}, eth1: {network: svc, addresses: [10.0.0.3]}}}
`)}})
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	s, d, r := f.Service("w"), f.Director("d"), f.RealServer("r")
	got := []any{s.Scheduler, s.Mode, s.Remote, s.Up, s.Hysteresis, len(s.Clients), s.Persistence, d.Image, d.Memory, d.CPUs, *d.OSPF, r.Memory, r.CPUs, r.Serves[0].Weight}
	want := []any{"wlc", ModeSpread, Share(0), 1, 0, 0, time.Duration(0), "director", int64(512 << 20), 1, OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}, int64(512 << 20), 1, 100}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	check := *s.Check
	check.Pos = Pos{}
	if diff := cmp.Diff(CheckEntry{Kind: "tcp", Port: 443, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}, check); diff != "" {
		t.Errorf("check (-want +got):\n%s", diff)
	}
}

// TestWarnings: what works, and is hardly meant.
func TestWarnings(t *testing.T) {
	base, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ old, new, want string }{
		{", announce: {bgp: {as: 64512, peer-as: 64500}}", "", "director d3 announces nothing: nobody can reach its VIPs"},
		{", announce: {bgp: {as: 64512, peer-as: 64500}}", ", announce: none", "director d3 announces nothing: nobody can reach its VIPs"},
		{"d1: {blade: b1,", "d1: {blade: b1, sync: 7,", "director d1 shares its connections with nobody"},
		{"peer-as: 64500}", "peer-as: 64500, bfd: {interval: 3s}}", "director d3: BFD takes 9s to notice what is noticed after 9s without it"},
		{"ports: [389/tcp]", "ports: [389/udp]", "service ldap has no TCP port and no check: its real servers always count as up"},
		{"serves: {ldap: {}}", "serves: {}", "service ldap has no real server"},
		{"serves: {ldap: {}}", "serves: {ldap: {weight: 0}}", "service ldap: every real server has weight 0: it takes no connections"},
		{"mode: survive}", "mode: survive}\n    persistence: 5m", "service www: persistence is kept by each director for itself and does not survive one"},
		{"up: 1, hysteresis: 0", "up: 1, hysteresis: 1", "service www: with a quorum of 1 and a hysteresis of 1 the quorum is lost with the last real server only"},
		{", routers: [192.0.2.1, \"2001:db8:1::1\"]", ", routers: [192.0.2.1]", "network up-east has no router for IPv6: its guests get no default route in that family"},
	}
	for _, c := range cases {
		t.Run(c.want, func(t *testing.T) {
			text := strings.Replace(string(base), c.old, c.new, 1)
			_, ds := Load([]File{{Name: "a.yaml", Data: []byte(text)}})
			if text == string(base) || ds.HasErrors() || !strings.Contains(ds.String(), ": warning: "+c.want) {
				t.Errorf("got:\n%s", ds)
			}
		})
	}
}

// TestEveryMistakeAtOnce: mistakes of syntax, of types and of references in three files come in one run.
func TestEveryMistakeAtOnce(t *testing.T) {
	_, ds := Load([]File{
		{Name: "c.yaml", Data: []byte("blades:\n  b1: {site: x, zone: z, trunk: t}\n  b2: {site: s, zone: z, trunk: t, managment: m}\n")},
		{Name: "a.yaml", Data: []byte("zones: [z, z]\nsites: [s]\n")},
		{Name: "b.yaml", Data: []byte("services:\n  w: {zone: y, vips: [192.0.2.1/32], ports: [443/tcp]}\n")},
	})
	var got []string
	for _, d := range ds {
		if d.Severity == SeverityError {
			got = append(got, d.Pos.String())
		}
	}
	if diff := cmp.Diff([]string{"a.yaml:1:12", "b.yaml:2:13", "b.yaml:2:23", "c.yaml:2:14", "c.yaml:3:36"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, ds)
	}
}

// TestWithSource: a finding of another package gets its line, and the order of its place.
func TestWithSource(t *testing.T) {
	f := nantes(t)
	made := Diagnostics{
		{Severity: SeverityError, Pos: f.Expectations[3].Pos, Message: "does not hold", Other: []Related{{Pos: f.Service("dns").Pos, Message: "decided here"}}},
		{Severity: SeverityError, Pos: f.Expectations[1].Pos, Message: "does not hold"},
	}
	got := f.WithSource(made)
	if !strings.Contains(got[0].Line, "2001:db8:c0::7") || !strings.Contains(got[1].Other[0].Line, "dns:") || got[1].Caret != 5 || made[0].Line != "" {
		t.Errorf("%s", got)
	}
}
