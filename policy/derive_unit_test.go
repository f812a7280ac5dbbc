package policy

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// changed loads the base policy with some texts replaced, old and new in turn.
func changed(t *testing.T, replacements ...string) *Fleet {
	t.Helper()
	data, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(text, replacements[i]) {
			t.Fatalf("no %q in the base policy", replacements[i])
		}
		text = strings.Replace(text, replacements[i], replacements[i+1], 1)
	}
	f, ds := Load([]File{{Name: "base.yaml", Data: []byte(text)}})
	if ds.HasErrors() {
		t.Fatalf("%s", ds)
	}
	return f
}

func mustDerive(t *testing.T, f *Fleet, name BladeName) Blade {
	t.Helper()
	b, err := Derive(f, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// balancer is the balancer of the blade's director.
func balancer(t *testing.T, b Blade) *Balancer {
	t.Helper()
	i := slices.IndexFunc(b.Guests, func(g Guest) bool { return g.Balancer != nil })
	if i < 0 {
		t.Fatalf("blade %s has no director", b.Name)
	}
	return b.Guests[i].Balancer
}

// weights writes one service's destinations as `guest weight/remote`, a sorry server with an exclamation mark.
func weights(b *Balancer, name ServiceName) []string {
	for _, v := range b.Services {
		if v.Service == name && v.VIP.Is4() {
			var out []string
			for _, d := range v.Destinations {
				s := fmt.Sprintf("%s %d/%d", d.Guest, d.Weight, d.Remote)
				if d.Sorry {
					s += "!"
				}
				out = append(out, s)
			}
			return out
		}
	}
	return nil
}

// TestWeights: what each director gives the real servers of www-l1's site and of others, in each mode.
func TestWeights(t *testing.T) {
	const second = "realservers:\n  x1: {blade: b1, image: web, serves: {cas: {weight: 7}}, eth0: {network: ret, addresses: [198.51.100.9]}, eth1: {network: svc, addresses: [10.1.0.9]}}\n"
	cases := []struct {
		name, balance string
		want          []string
	}{
		{"locality, 1%", "{scheduler: wlc, mode: locality, remote: 1%}", []string{"x1 7/0", "w1 100/0!", "c1 1/50"}},
		{"locality, 2.001%", "{scheduler: wlc, mode: locality, remote: 2.001%}", []string{"x1 7/0", "w1 100/0!", "c1 2/50"}},
		{"locality, 100%", "{scheduler: wlc, mode: locality, remote: 100%}", []string{"x1 7/0", "w1 100/0!", "c1 50/50"}},
		{"locality, nothing", "{scheduler: rr, mode: locality}", []string{"x1 7/0", "w1 100/0!", "c1 0/50"}},
		{"spread", "{scheduler: wrr}", []string{"x1 7/0", "w1 100/0!", "c1 50/0"}},
		{"survive", "{scheduler: sh, mode: survive}", []string{"x1 7/0", "w1 100/0!", "c1 50/0"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := changed(t, "{scheduler: wlc, mode: locality, remote: 1%}", c.balance, "realservers:\n", second)
			if diff := cmp.Diff(c.want, weights(balancer(t, mustDerive(t, f, "b1")), "cas")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestVirtualServices(t *testing.T) {
	f := changed(t, "ports: [443/tcp]", "ports: [9000-9002/tcp, 53/udp]", "mode: survive}", "mode: survive}\n    persistence: 90s")
	var got []string
	for _, v := range balancer(t, mustDerive(t, f, "b1")).Services {
		got = append(got, fmt.Sprintf("%s %s %d/%s %s %v %s", v.Service, v.VIP, v.Port, v.Protocol, v.Scheduler, v.Flags, v.Persistence))
	}
	want := []string{
		"www 203.0.113.10 80/tcp mh [mh-port mh-fallback] 1m30s", "www 203.0.113.10 443/tcp mh [mh-port mh-fallback] 1m30s",
		"cas 203.0.113.11 9000/tcp wlc [] 5m0s", "cas 203.0.113.11 9001/tcp wlc [] 5m0s", "cas 203.0.113.11 9002/tcp wlc [] 5m0s", "cas 203.0.113.11 53/udp wlc [] 5m0s",
		"www 2001:db8:5::10 80/tcp mh [mh-port mh-fallback] 1m30s", "www 2001:db8:5::10 443/tcp mh [mh-port mh-fallback] 1m30s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestChecksAreShared: two services that ask the same of one server share a check, another interval makes another.
func TestChecksAreShared(t *testing.T) {
	const both = "serves: {www: {}, cas: {}}"
	ids := func(check string) []string {
		f := changed(t, "serves: {www: {}}", both, ", sorry: w1", check)
		var out []string
		for _, c := range balancer(t, mustDerive(t, f, "b1")).Checks {
			if c.Guest == "w1" && c.Address.Is4() {
				out = append(out, c.ID[:strings.LastIndexByte(c.ID, '/')])
			}
		}
		return out
	}
	const one, two = "http/10.1.0.11:80", "tcp/10.1.0.11:443"
	for check, want := range map[string][]string{
		", check: {http: {port: 80, path: /health}}":               {one},
		", check: {http: {port: 80, path: /health}, interval: 3s}": {one, one},
		"": {one, two},
	} {
		if diff := cmp.Diff(want, ids(check)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", check, diff)
		}
	}
}

// TestProbes: what the filter must let through for each kind of check.
func TestProbes(t *testing.T) {
	for change, want := range map[string]string{
		"ports: [389/tcp]": "[389/tcp]",
		"ports: [53/udp, 53/tcp], check: {dns: {name: a.example}}":        "[53/tcp 53/udp]",
		"ports: [53/udp, 80/tcp], check: {dns: {name: a.example}}":        "[53/udp]",
		"ports: [53/udp, 80/tcp], check: {https: {port: 8443}}":           "[8443/tcp]",
		"ports: [123/udp], check: {script: {path: /bin/true}}":            "[123/udp]",
		"ports: [53/udp, 53/tcp], check: {script: {path: /bin/true}}":     "[53/tcp 53/udp]",
		"ports: [53/udp], check: {script: {path: /bin/true, port: 9000}}": "[9000/tcp]",
		"ports: [53/udp]": "[]",
		"ports: [8000-8099/tcp], check: {http: {path: /}}":                     "[8000/tcp]",
		"ports: [5353/udp], check: {dns: {name: _sip._udp.example, port: 54}}": "[54/udp]",
	} {
		b := mustDerive(t, changed(t, "ports: [389/tcp]", change), "b3")
		if got := fmt.Sprint(b.Services[0].Checks); got != want {
			t.Errorf("%s: %s, want %s", change, got, want)
		}
	}
}

// TestSharedVIP: one VIP of two services stands once on a loopback.
func TestSharedVIP(t *testing.T) {
	f := changed(t, "vips: [203.0.113.11], ports: [443/tcp]", "vips: [203.0.113.10], ports: [8443/tcp]")
	for _, g := range mustDerive(t, f, "b1").Guests {
		if diff := cmp.Diff([]ServiceName{"cas", "www"}, g.Inside.VIPs[0].Services); diff != "" || g.Inside.VIPs[0].Address.String() != "203.0.113.10" {
			t.Errorf("%s has %+v\n%s", g.Name, g.Inside.VIPs, diff)
		}
	}
}

// TestRules: what a rule becomes on blades of two zones, and which rules are left out.
func TestRules(t *testing.T) {
	f := changed(t, "rules:\n", `rules:
  named: {from: [p1], to: [any], allow: [25/tcp]}
  crossing: {from: [c1], to: [p1], allow: [22/tcp]}
  outside: {from: [203.0.113.0/30], to: [203.0.113.4/30], allow: [1/tcp]}
  wide: {from: [10.0.0.0/8], to: [10.2.0.12], allow: [2/tcp, 2/tcp]}
`)
	write := func(b Blade) []string {
		var out []string
		for _, r := range b.Rules {
			out = append(out, fmt.Sprintf("%s %v %t -> %v %t %v", r.Name, r.From, r.FromAny, r.To, r.ToAny, r.Allow))
		}
		return out
	}
	pub := []string{
		"admin [203.0.113.240/28] false -> [10.1.0.2/32 10.1.0.11/32 10.1.0.12/32 192.0.2.2/32 198.51.100.11/32 198.51.100.12/32 2001:db8:1::2/128 2001:db8:2::2/128 2001:db8:2::11/128 2001:db8:3::11/128] false [icmp 22/tcp]",
		"crossing [10.1.0.12/32 198.51.100.12/32] false -> [10.2.0.12/32 198.51.100.140/32] false [22/tcp]",
		"wide [10.0.0.0/8] false -> [10.2.0.12/32] false [2/tcp]",
	}
	prv := []string{
		"admin [203.0.113.240/28] false -> [10.2.0.2/32 10.2.0.12/32 192.0.2.34/32 198.51.100.140/32] false [icmp 22/tcp]",
		"crossing [10.1.0.12/32 198.51.100.12/32] false -> [10.2.0.12/32 198.51.100.140/32] false [22/tcp]",
		"named [10.2.0.12/32 198.51.100.140/32] false -> [] true [25/tcp]",
		"wide [10.0.0.0/8] false -> [10.2.0.12/32] false [2/tcp]",
	}
	if diff := cmp.Diff(pub, write(mustDerive(t, f, "b2"))); diff != "" {
		t.Errorf("public (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(prv, write(mustDerive(t, f, "b3"))); diff != "" {
		t.Errorf("private (-want +got):\n%s", diff)
	}
}

// TestNobodyIsNotAnybody: a role without guests leaves no rule behind, since an empty list could be read as any.
func TestNobodyIsNotAnybody(t *testing.T) {
	f, ds := Load([]File{{Name: "a.yaml", Data: []byte("zones: [z]\nsites: [s]\nblades: {b: {site: s, zone: z, trunk: t}}\nrules: {r: {from: [directors], to: [any], allow: [icmp]}}\n")}})
	if ds.HasErrors() {
		t.Fatal(ds)
	}
	if b := mustDerive(t, f, "b"); len(b.Rules) != 0 {
		t.Errorf("%+v", b.Rules)
	}
}

// TestRoutes: one default route for each family that a guest has on eth0, by the first router as written.
func TestRoutes(t *testing.T) {
	f := changed(t, "routers: [198.51.100.1, \"2001:db8:3::1\"]", "routers: [198.51.100.3, 198.51.100.1, \"2001:db8:3::9\", \"2001:db8:3::1\"]")
	got := map[GuestName]string{}
	for _, name := range []BladeName{"b1", "b2"} {
		for _, g := range mustDerive(t, f, name).Guests {
			got[g.Name] = fmt.Sprint(g.Inside.Routes)
		}
	}
	want := map[GuestName]string{
		"w1": "[{0.0.0.0/0 198.51.100.3 eth0} {::/0 2001:db8:3::9 eth0}]", "c1": "[{0.0.0.0/0 198.51.100.3 eth0}]",
		"d1": "[{0.0.0.0/0 192.0.2.1 eth0} {::/0 2001:db8:1::1 eth0}]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A virtual machine gets taps and an identifier for its helper, and needs no sysctl that stands in for a capability.
func TestDeriveRealServerInAMachine(t *testing.T) {
	guest := func(f *Fleet) Guest {
		b := mustDerive(t, f, "b1")
		i := slices.IndexFunc(b.Guests, func(g Guest) bool { return g.Name == "w1" })
		return b.Guests[i]
	}
	box, machine := guest(changed(t)), guest(changed(t, "w1: {blade: b1,", "w1: {blade: b1, driver: kvm,"))
	if box.Driver != DriverLXC || box.CID != 0 || machine.Driver != DriverKVM || machine.CID != CIDOf("w1") {
		t.Errorf("%s %d, %s %d", box.Driver, box.CID, machine.Driver, machine.CID)
	}
	for _, p := range machine.Ports {
		if p.Driver != DriverKVM {
			t.Errorf("port %s: %s", p.Name, p.Driver)
		}
	}
	if diff := cmp.Diff(insideSysctls(), machine.Inside.Sysctls); diff != "" {
		t.Errorf("sysctls (-want +got):\n%s", diff)
	}
	box.Inside.Sysctls, machine.Inside.Sysctls = nil, nil
	if !reflect.DeepEqual(box.Inside, machine.Inside) {
		t.Errorf("all else inside is not the same: container %+v, machine %+v", box.Inside, machine.Inside)
	}
}
