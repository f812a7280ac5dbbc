package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// scaled generates a fleet: sites x 2 zones, blades spread over them, a director on every tenth blade, real servers on the
// blades, each service served by servers/services of them.
func scaled(blades, servers, services int) []File {
	const sites = 5
	var b strings.Builder
	b.WriteString("zones: [pub, prv]\nsites: [s0, s1, s2, s3, s4]\nnetworks:\n")
	zones := []string{"pub", "prv"}
	for z, zone := range zones {
		for s := range sites {
			fmt.Fprintf(&b, "  %s-up-%d: {zone: %s, role: uplink, vlan: %d, sites: [s%d], subnets: [10.%d.%d.0/24, \"2001:db8:%x::/64\"], routers: [10.%d.%d.1, \"2001:db8:%x::1\"]}\n",
				zone, s, zone, 100+z*10+s, s, 100+z, s, 0x100+z*16+s, 100+z, s, 0x100+z*16+s)
		}
		fmt.Fprintf(&b, "  %s-svc: {zone: %s, role: service, vlan: %d, subnets: [10.%d.0.0/16, \"2001:db8:%x::/64\"]}\n", zone, zone, 200+z, 10+z, 0x200+z)
		fmt.Fprintf(&b, "  %s-ret: {zone: %s, role: return, vlan: %d, subnets: [10.%d.0.0/16, \"2001:db8:%x::/64\"], routers: [10.%d.0.1, \"2001:db8:%x::1\"]}\n", zone, zone, 300+z, 20+z, 0x300+z, 20+z, 0x300+z)
	}
	b.WriteString("blades:\n")
	for i := range blades {
		fmt.Fprintf(&b, "  b%d: {site: s%d, zone: %s, trunk: eno1, management: eno2}\n", i, i/2%sites, zones[i%2])
	}
	b.WriteString("services:\n")
	for i := range services {
		fmt.Fprintf(&b, "  svc-%d: {zone: %s, vips: [172.16.%d.%d, \"2001:db8:f::%x\"], ports: [80/tcp, 443/tcp], balance: {scheduler: wlc, mode: locality, remote: 1%%}, check: {http: {port: 80, path: /health}}}\n",
			i, zones[i%2], i/250, i%250+1, i+1)
	}
	files := []File{{Name: "10-ground.yaml", Data: []byte(b.String())}}
	b.Reset()
	b.WriteString("directors:\n")
	for i := 0; i < blades; i += 10 {
		for z := range 2 {
			n := i/10 + 2
			fmt.Fprintf(&b, "  dir-%d: {blade: b%d, eth0: {network: %s-up-%d, addresses: [10.%d.%d.%d, \"2001:db8:%x::%x\"]}, eth1: {network: %s-svc, addresses: [10.%d.255.%d, \"2001:db8:%x::ff:%x\"]}, announce: {ospf: {area: 0.0.0.0, hello: 1s, dead: 4s, bfd: true}}}\n",
				i+z, i+z, zones[z], (i+z)/2%sites, 100+z, (i+z)/2%sites, n, 0x100+z*16+(i+z)/2%sites, n, zones[z], 10+z, n, 0x200+z, n)
		}
	}
	b.WriteString("realservers:\n")
	for i := range servers {
		z, n := i%2, i/2+2
		fmt.Fprintf(&b, "  node-%d: {blade: b%d, image: web, serves: {svc-%d: {weight: 100}}, eth0: {network: %s-ret, addresses: [10.%d.%d.%d, \"2001:db8:%x::%x\"]}, eth1: {network: %s-svc, addresses: [10.%d.%d.%d, \"2001:db8:%x::%x\"]}}\n",
			i, i%blades, i%services, zones[z], 20+z, n/256, n%256, 0x300+z, n, zones[z], 10+z, n/256, n%256, 0x200+z, n)
	}
	files = append(files, File{Name: "20-guests.yaml", Data: []byte(b.String())})
	b.Reset()
	b.WriteString("rules:\n  admin: {from: [203.0.113.0/28], to: [directors, realservers], allow: [22/tcp, icmp]}\n")
	for i := range 200 {
		fmt.Fprintf(&b, "  out-%d: {from: [node-%d], to: [any], allow: [443/tcp]}\n", i, i*37%servers)
	}
	return append(files, File{Name: "30-rules.yaml", Data: []byte(b.String())})
}

// TestScaledIsClean makes sure that the benchmark measures a policy without a finding.
func TestScaledIsClean(t *testing.T) {
	if _, ds := Load(scaled(100, 1000, 200)); len(ds) > 0 {
		t.Fatal(ds[:min(5, len(ds))])
	}
}

// BenchmarkFleet loads, checks and derives one blade with a director out of 1 000 blades, 10 000 real servers, 2 000 services.
func BenchmarkFleet(b *testing.B) {
	files := scaled(1000, 10_000, 2000)
	size := 0
	for _, f := range files {
		size += len(f.Data)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		f, ds := Load(files)
		if len(ds) > 0 {
			b.Fatal(ds[:1])
		}
		if _, err := Derive(f, "b500"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDerive derives one blade of that fleet.
func BenchmarkDerive(b *testing.B) {
	f, ds := Load(scaled(1000, 10_000, 2000))
	if len(ds) > 0 {
		b.Fatal(ds[:1])
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Derive(f, "b500"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestScale holds the fleet of the benchmark to generous bounds, so that something quadratic is found by every run of the tests:
// the target, a second and 500 MB, is for the benchmark on a quiet machine.
func TestScale(t *testing.T) {
	files := scaled(1000, 10_000, 2000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := cpuTime(t)
	f, ds := Load(files)
	if len(ds) > 0 {
		t.Fatal(ds[:1])
	}
	if _, err := Derive(f, "b500"); err != nil {
		t.Fatal(err)
	}
	took := cpuTime(t) - start
	runtime.ReadMemStats(&after)
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 500 {
		t.Errorf("allocated %d MB, want at most 500", mb)
	}
	if took > 3*longestLoad {
		t.Errorf("took %s", took)
	}
}
