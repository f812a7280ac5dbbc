package policy

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHostile demands an answer to each policy in a second (ten under the race detector), with bounded memory, and an error.
func TestHostile(t *testing.T) {
	bomb := "zones: [a]\nrules:\n  r0: &r0 {from: [a], to: [b], allow: [icmp]}\n"
	list := "a0: &a0 [a, a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 12; i++ {
		list += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10))
		bomb += fmt.Sprintf("  r%d: &r%d {<<: [%s]}\n", i, i, strings.Repeat(fmt.Sprintf("*r%d, ", i-1), 10))
	}
	many := func(head, each string, n int) string {
		var b strings.Builder
		b.WriteString(head)
		for i := range n {
			fmt.Fprintf(&b, each, i)
		}
		return b.String()
	}
	policies := map[string]string{
		"alias bomb":         list + "zones: *a11\n",
		"merge bomb":         bomb,
		"aliased entries":    "rules:\n  r: {from: [any], to: &t [" + strings.Repeat("directors, ", 50_000/shrink) + "], allow: [icmp]}\n" + many("", "  r%d: {from: [any], to: *t, allow: [icmp]}\n", 1000),
		"unknown keys":       many("", "k%d: 1\n", 200_000/shrink),
		"unknown references": many("zones: [a]\nblades:\n", "  b%d: {site: nowhere, zone: nobody, trunk: eno1}\n", 50_000/shrink),
		"names twice":        many("zones: [", "a, ", 300_000/shrink) + "]\n",
		"one VLAN":           many("networks:\n", "  n%[1]d: {zone: z, role: service, vlan: 5, sites: [s%[1]d], subnets: [10.0.0.0/8]}\n", 40_000/shrink),
		"one subnet":         many("networks:\n", "  n%d: {zone: z, role: service, vlan: 5, subnets: [10.0.0.0/8]}\n", 40_000/shrink),
		"one VIP":            many("services:\n", "  s%d: {zone: z, vips: [192.0.2.1], ports: [1-1000/tcp, 1-900/udp]}\n", 30_000/shrink),
		"ports":              many("services:\n", "  s%d: {zone: z, vips: [192.0.2.1], ports: [1-65535/tcp, 1-65535/udp]}\n", 1000),
		"empty lists":        "zones: [" + strings.Repeat(",", 100_000) + "]",
		"long names":         many("blades:\n", "  "+strings.Repeat("x", 5000)+"%d: {}\n", 500),
		"long values":        "alerts: [{webhook: " + strings.Repeat("x", 7<<20/shrink) + "}]\n",
		"wide list":          "expect: [" + strings.Repeat("a, ", 400_000/shrink) + "]\n",
		"binary":             "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 4<<20/shrink),
		"a file too large":   strings.Repeat("#", 9<<20),
	}
	for name, text := range policies {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := cpuTime(t)
			_, ds := Load([]File{{Name: "a.yaml", Data: []byte(text)}})
			took := cpuTime(t) - start
			runtime.ReadMemStats(&after)
			if took > longestLoad {
				t.Errorf("took %s", took)
			}
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 600 {
				t.Errorf("allocated %d MB", mb)
			}
			if !ds.HasErrors() || len(ds) > mostDiagnostics+10 {
				t.Errorf("%d findings, errors: %t", len(ds), ds.HasErrors())
			}
			t.Logf("%s, %d findings", took, len(ds))
		})
	}
}

// cpuTime is what this process has computed for so far: other load on the machine must not fail a test of speed.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
