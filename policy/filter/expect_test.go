package filter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy"
)

func TestNantesKeepsItsExpectations(t *testing.T) {
	f := nantes(t)
	if len(f.Expectations) < 10 {
		t.Fatalf("%d expectations: too few to mean anything", len(f.Expectations))
	}
	for _, d := range CheckExpectations(f) {
		t.Errorf("%s: %s", d.Pos, d.Message)
	}
}

// TestExpectationsCanFail turns every expectation of nantes around: each must then be found, at its place.
func TestExpectationsCanFail(t *testing.T) {
	f := nantes(t)
	want := map[policy.Pos]bool{}
	for i, x := range f.Expectations {
		want[x.Pos] = true
		f.Expectations[i].Verdict = map[policy.Verdict]policy.Verdict{policy.Accept: policy.Drop, policy.Drop: policy.Accept}[x.Verdict]
	}
	for _, d := range CheckExpectations(f) {
		delete(want, d.Pos)
	}
	for pos := range want {
		t.Errorf("%s: holds whatever it says", pos)
	}
}

// TestExplain follows packets through nantes and names what decides each.
func TestExplain(t *testing.T) {
	const lines = `
198.18.0.7 -> [203.0.113.10, 443/tcp]        : service www
203.0.113.130 -> [203.0.113.53, 53/udp]      : service dns
198.18.0.7 -> [203.0.113.10, 22/tcp]         ! vip-port
198.18.0.7 -> [203.0.113.53, 53/udp]         ! vip-client
198.51.100.11 -> [203.0.113.10, 443/tcp]     ! no-rule
www-l1 -> [203.0.113.53, 53/udp]             : service dns
ldap-l1 -> [203.0.113.53, 53/udp]            : service dns
ldap-l1 -> [203.0.113.38, 389/tcp]           ! no-rule
ldap-l1 -> [203.0.113.226, 123/udp]          : rule resolve-and-clock
proxy-l1 -> [203.0.113.10, 443/tcp]          ! vip-client
proxy-l1 -> [198.18.0.7, 443/tcp]            : rule proxy-out
proxy-l1 -> [www-l1, 443/tcp]                ! no-rule
www-l1 -> [www-t1, 22/tcp]                   ! no-rule
dir-pub-l -> [10.12.1.11, 80/tcp]            : health check of www
dir-pub-t -> [10.12.1.11, 80/tcp]            : health check of www
dir-pub-l -> [10.12.1.11, 22/tcp]            ! no-rule
dir-prv-l -> [10.22.1.41, 53/udp]            : health check of dns
dir-pub-c -> [192.0.2.33, 179/tcp]           : BGP of dir-pub-c
dir-pub-l -> [192.0.2.1, 179/tcp]            ! no-rule
dir-pub-l -> [192.0.2.1, 3784/udp]           : BFD of dir-pub-l
203.0.113.241 -> [dir-pub-l, icmp]           : rule admin
203.0.113.193 -> [lame-l1, 22/tcp]           : hosts rule management
198.18.0.7 -> [lame-l1, 22/tcp]              ! host-policy
www-l1 -> [lame-l1, 22/tcp]                  ! host-from-guest
lame-l1 -> [www-l1, 22/tcp]                  ! no-rule
`
	text := "expect:\n"
	var want []string
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		ends, verdict, accepts := strings.Cut(line, ":")
		if !accepts {
			ends, verdict, _ = strings.Cut(line, "!")
		}
		from, to, _ := strings.Cut(ends, "->")
		text += fmt.Sprintf("  - {from: %s, to: %s, verdict: accept}\n", strings.TrimSpace(from), strings.TrimSpace(to))
		want = append(want, strings.TrimSpace(verdict))
	}
	files, err := policy.ReadDir("../testdata/fleets/nantes")
	if err != nil {
		t.Fatal(err)
	}
	f, diagnostics := policy.Load(append(files, policy.File{Name: "more.yaml", Data: []byte(text)}))
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	e := NewExplainer(f)
	asked := f.Expectations[len(f.Expectations)-len(want):]
	for i, x := range asked {
		o := e.Explain(x)
		if len(o.Ways) == 0 {
			t.Errorf("%s: no way", x.Pos)
			continue
		}
		got := o.Ways[0].Last().Verdict
		if decided := got.Rule; decided != want[i] && string(got.Reason) != want[i] {
			t.Errorf("line %d: got %q %s, want %s", i+1, got.Rule, got.Reason, want[i])
		}
	}
}
