package announce

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// specs are the cases of the golden files; the kernel tests load each into the real daemons.
func specs() map[string]Spec {
	a := netip.MustParseAddr
	both := []netip.Addr{a("203.0.113.12"), a("2001:db8:5::10"), a("203.0.113.10"), a("203.0.113.10")}
	return map[string]Spec{
		"ospf-bfd": {
			Hostname: "dir-pub-l", VIPs: both,
			Announce: policy.Announce{RouterID: a("192.0.2.2"), OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second, BFD: policy.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}}},
		},
		"ospf-ipv6-vips-only": {
			Hostname: "dir", VIPs: both[1:2],
			Announce: policy.Announce{RouterID: a("192.0.2.2"), OSPF: &policy.OSPF{Area: "0.0.0.17", Hello: 10 * time.Second, Dead: 40 * time.Second}},
		},
		"ospf-no-vips": {
			Announce: policy.Announce{RouterID: a("192.0.2.2"), OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second, Dead: 4 * time.Second}},
		},
		"bgp-bfd": {
			Hostname: "dir-pub-c", VIPs: both,
			Announce: policy.Announce{
				RouterID: a("192.0.2.34"), Routers: []netip.Addr{a("192.0.2.33"), a("2001:db8:113::1")},
				BGP: &policy.BGP{AS: 64512, PeerAS: 64500, BFD: policy.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}},
			},
		},
		"bgp-ipv4-routers-only": {
			VIPs: both,
			Announce: policy.Announce{
				RouterID: a("192.0.2.34"), Routers: []netip.Addr{a("192.0.2.33"), a("192.0.2.32")},
				BGP: &policy.BGP{AS: 4200000000, PeerAS: 4200000000},
			},
		},
		"vrrp": {
			Hostname: "dir-1", VIPs: []netip.Addr{a("192.0.2.12"), a("2001:db8:111::10"), a("192.0.2.10")},
			Announce: policy.Announce{RouterID: a("192.0.2.2"), VRRP: &policy.VRRP{ID: 40, Priority: 150, Interval: 250 * time.Millisecond}},
		},
		"vrrp-drained": {
			VIPs:     []netip.Addr{a("192.0.2.12")},
			Announce: policy.Announce{RouterID: a("192.0.2.2"), Drained: true, VRRP: &policy.VRRP{Priority: 1, Interval: 40 * time.Second}},
		},
		"none": {Hostname: "dir", VIPs: both},
	}
}

// text joins a spec's configurations for a golden file, in the order in which the daemons start.
func text(s Spec) string {
	var b strings.Builder
	files := Render(s)
	for _, d := range s.Daemons() {
		b.WriteString("===== " + d + "\n" + files[d])
	}
	return b.String()
}

func TestRenderGolden(t *testing.T) {
	for name, s := range specs() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".golden")
			got := text(s)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestOnlyVIPsLeave holds what must be so of every rendered configuration, whatever the golden files say.
func TestOnlyVIPsLeave(t *testing.T) {
	for name, s := range specs() {
		t.Run(name, func(t *testing.T) {
			permitted := map[string]bool{}
			for _, v := range s.VIPs {
				permitted[netip.PrefixFrom(v, v.BitLen()).String()] = true
			}
			for daemon, file := range Render(s) {
				lists, ends := map[string]bool{}, map[string]bool{}
				for line := range strings.Lines(file) {
					f := strings.Fields(line)
					switch {
					case len(f) > 2 && f[1] == "prefix-list":
						lists[f[2]] = true
						if f[5] == "permit" && !permitted[f[6]] {
							t.Errorf("%s permits %s", daemon, f[6])
						}
						ends[f[2]] = f[5] == "deny"
					case len(f) > 0 && f[0] == "redistribute" && (f[1] != "connected" || f[len(f)-2] != "route-map"):
						t.Errorf("%s redistributes without a route map: %s", daemon, line)
					case len(f) > 0 && f[0] == "interface" && f[1] != "eth0":
						t.Errorf("%s speaks on %s", daemon, f[1])
					case len(f) == 3 && f[1] == "dev" && (!permitted[f[0]] || f[2] != "eth0"):
						t.Errorf("%s puts %s on %s", daemon, f[0], f[2])
					case len(f) > 0 && f[0] == "network":
						t.Errorf("%s names a network: %s", daemon, line)
					}
				}
				for l := range lists {
					if !ends[l] {
						t.Errorf("%s: prefix list %s does not end with a refusal", daemon, l)
					}
				}
			}
		})
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 1, 300 * time.Millisecond: 1, time.Second: 1, 2600 * time.Millisecond: 3, 40 * time.Second: 40} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%s) = %d, want %d", d, got, want)
		}
	}
}
