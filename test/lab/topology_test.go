package lab

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestTopology shows all that is derived from a fleet: links, addresses, routes and the router's FRR.
func TestTopology(t *testing.T) {
	for _, test := range []struct {
		name   string
		dir    string
		blades int
	}{
		{"one-blade", "../fleets/one-blade", 1},
		{"three-blades", "testdata/two-zones", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			fleet, _, err := loadFleet(test.dir)
			if err != nil {
				t.Fatal(err)
			}
			topology, err := makeTopology(fleet, test.blades)
			if err != nil {
				t.Fatal(err)
			}
			topology.Emulated = test.blades == 1
			golden(t, filepath.Join("testdata", test.name+".golden"), describe(topology))
		})
	}
}

func describe(t topology) string {
	var b strings.Builder
	part := func(name, text string) { fmt.Fprintf(&b, "== %s\n%s", name, text) }
	for _, s := range t.Sites {
		part("links of "+s.router(), t.routerLinks(s))
		part("links of "+s.client(), s.clientLinks())
	}
	if len(t.Sites) > 1 {
		part("links of "+machine, t.machineLinks())
	}
	for i, blade := range t.Blades {
		part("links of "+blade.Name, t.bladeLinks(i))
	}
	for _, s := range t.Sites {
		for _, c := range t.frrConfigs(s) {
			part(c.daemon+" of "+s.router(), c.text)
		}
	}
	return b.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
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
		t.Errorf("%s (-want +got)\n%s", file, diff)
	}
}

func TestTopologyRefuses(t *testing.T) {
	fleet, _, err := loadFleet("testdata/two-zones")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := makeTopology(fleet, 5); err == nil || !strings.Contains(err.Error(), "the fleet has 4") {
		t.Errorf("five blades of four: %v", err)
	}
	if _, err := makeTopology(fleet, 4); err == nil || !strings.Contains(err.Error(), "VLAN 120 is") {
		t.Errorf("one VLAN in two zones: %v", err)
	}
	if _, _, err := loadFleet(t.TempDir()); err == nil {
		t.Error("an empty folder is a fleet")
	}
}
