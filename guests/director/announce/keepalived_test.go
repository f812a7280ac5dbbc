package announce

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

// TestVIPsAreTold holds which VIPs VRRP may have: those on the loopback, and none of a director that is drained.
func TestVIPsAreTold(t *testing.T) {
	a := netip.MustParseAddr
	one, two := a("192.0.2.10"), a("2001:db8:111::10")
	in := policy.Inside{Hostname: "dir-1", VIPs: []policy.VIP{{Address: one}, {Address: two}}}
	c := Config{Log: slog.New(slog.DiscardHandler), Pair: filepath.Join(t.TempDir(), "vrrp")}
	for _, step := range []struct {
		name     string
		drained  bool
		loopback []netip.Addr
		want     map[string]string
	}{
		{"nothing yet", false, nil, map[string]string{"192.0.2.10": "1\n", "2001:db8:111::10": "1\n"}},
		{"one has its quorum", false, []netip.Addr{two}, map[string]string{"192.0.2.10": "1\n", "2001:db8:111::10": "0\n"}},
		{"both, and a stranger", false, []netip.Addr{one, two, a("192.0.2.99")}, map[string]string{"192.0.2.10": "0\n", "2001:db8:111::10": "0\n"}},
		{"drained", true, []netip.Addr{one, two}, map[string]string{"192.0.2.10": "1\n", "2001:db8:111::10": "1\n"}},
		{"undrained", false, []netip.Addr{one}, map[string]string{"192.0.2.10": "0\n", "2001:db8:111::10": "1\n"}},
	} {
		spec := Of(in, policy.Announce{RouterID: a("192.0.2.2"), Drained: step.drained, VRRP: &policy.VRRP{Priority: 100}})
		if err := c.tellVIPs(spec, step.loopback); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		entries, err := os.ReadDir(c.Pair)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(c.Pair, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got[e.Name()] = string(text)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// TestNobodyElseIsTold: FRR sees the loopback by itself, and needs no files.
func TestNobodyElseIsTold(t *testing.T) {
	c := Config{Pair: filepath.Join(t.TempDir(), "vrrp")}
	if err := c.tellVIPs(Spec{VIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10")}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Pair); err == nil {
		t.Error("there are files")
	}
}

// TestChatterIsNotLogged: what keepalived says of each advertisement would use up what it may say, and its changes of state would be missed.
func TestChatterIsNotLogged(t *testing.T) {
	var out bytes.Buffer
	said := &lineLog{log: slog.New(slog.NewTextHandler(&out, nil)), daemon: keepalived, skip: (&daemon{name: keepalived}).chatter()}
	for range maxLines {
		fmt.Fprintln(said, "Sun Nov 29 21:17:43 2026: (192.0.2.10) received lower priority (100) advert from 192.0.2.3 - discarding")
	}
	fmt.Fprintln(said, "Sun Nov 29 21:17:43 2026: (192.0.2.10) Entering MASTER STATE")
	if lines := strings.Count(out.String(), "\n"); lines != 1 || !strings.Contains(out.String(), "Entering MASTER STATE") {
		t.Errorf("%d lines:\n%s", lines, &out)
	}
	if (&daemon{name: zebra}).chatter() != nil {
		t.Error("FRR's daemons are kept from saying something")
	}
}
