package policy

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pairText is the policy of a bad case of VRRP, which is good but for its one mistake; fix mends that.
func pairText(t *testing.T, fix func(string) string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/bad/vrrp-same-priority.txt")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(data), separator)
	return fix(strings.Replace(text, "id: 40, priority: 150, interval: 1s}}}\nrealservers", "id: 40, priority: 100, interval: 1s}}}\nrealservers", 1))
}

func loadPair(t *testing.T, fix func(string) string) (*Fleet, Diagnostics) {
	t.Helper()
	f, ds := Load([]File{{Name: "fleet.yaml", Data: []byte(pairText(t, fix))}})
	if ds.HasErrors() {
		t.Fatal(ds)
	}
	return f, ds
}

// single takes the second director away.
func single(text string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  d2:") }), "\n")
}

func asItIs(text string) string { return text }

// TestAPairIsDerived holds what a blade knows of a pair: of each director how it announces, and which addresses come and go on its eth0.
func TestAPairIsDerived(t *testing.T) {
	f, ds := loadPair(t, asItIs)
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	b, err := Derive(f, "b1")
	if err != nil {
		t.Fatal(err)
	}
	got := map[GuestName]*VRRP{}
	for _, p := range b.Peers {
		if p.VRRP != nil && p.Interface == "eth0" {
			got[p.Guest] = p.VRRP
		}
	}
	want := map[GuestName]*VRRP{"d1": {ID: 40, Priority: 150, Interval: time.Second}, "d2": {ID: 40, Priority: 100, Interval: time.Second}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8:1::10")}
	for _, g := range b.Guests {
		floating := g.Inside.Floating
		if g.Role == RoleDirector && (!slices.Equal(floating, vips) || *g.Balancer.Announce.VRRP != *want[g.Name]) || g.Role == RoleRealServer && floating != nil {
			t.Errorf("%s: floating %s", g.Name, floating)
		}
	}
	for vip, id := range map[string]int{"192.0.2.10": 50, "192.0.2.11": 51, "2001:db8:1::10": 56} {
		if got := want["d1"].Router(netip.MustParseAddr(vip)); got != id {
			t.Errorf("%s is virtual router %d, want %d", vip, got, id)
		}
	}
}

// TestOneOfAPair: a director alone announces with a warning, the next one that is spawned joins it, and one after that announces nothing.
func TestOneOfAPair(t *testing.T) {
	_, ds := loadPair(t, single)
	if text := ds.String(); !strings.Contains(text, ": warning: director d1 announces by VRRP alone: nobody takes its VIPs over") {
		t.Errorf("got:\n%s", text)
	}
	for _, c := range []struct {
		fix  func(string) string
		want string
	}{
		{single, "announce: {vrrp: {id: 40, priority: 100, interval: 1s}}}"},
		{func(text string) string { return strings.Replace(single(text), "priority: 150", "priority: 30", 1) }, "announce: {vrrp: {id: 40, priority: 80, interval: 1s}}}"},
		{asItIs, "announce: none}"},
	} {
		f, _ := loadPair(t, c.fix)
		file, err := Allocate(f, SpawnRequest{Role: RoleDirector, Name: "d9", Blade: "b2"})
		if err != nil || !strings.Contains(string(file.Data), c.want) || strings.Contains(string(file.Data), "192.0.2.10,") {
			t.Errorf("spawned %s, %v, want %s", file.Data, err, c.want)
		}
	}
}

// TestDrainOfAPair: the other one of a pair announces as well.
func TestDrainOfAPair(t *testing.T) {
	f, _ := loadPair(t, asItIs)
	if alone := f.leftAlone(f.Director("d1")); alone != nil {
		t.Error(alone)
	}
	f, _ = loadPair(t, single)
	if alone := f.leftAlone(f.Director("d1")); alone == nil {
		t.Error("nobody else announces")
	}
}
