package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy/yaml"
)

// shuffled rewrites a policy as other files: every map's keys in another order, the entries of each section dealt out to a few
// files with random names. What it says stays the same.
func shuffled(t *testing.T, files []File, rng *rand.Rand) []File {
	t.Helper()
	parts := make([]strings.Builder, 1+rng.IntN(5))
	for _, f := range files {
		tree, errs := yaml.Parse(string(f.Data), yaml.Options{})
		if len(errs) > 0 {
			t.Fatal(errs[0])
		}
		for _, root := range tree.Documents {
			for _, i := range rng.Perm(len(root.Pairs)) {
				deal(root.Pairs[i], parts, rng)
			}
		}
	}
	var out []File
	for i := range parts {
		out = append(out, File{Name: fmt.Sprintf("%d-%d.yaml", rng.IntN(1000), i), Data: []byte(parts[i].String())})
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// deal writes a section's entries into random files, each in a document of its own.
func deal(section yaml.Pair, parts []strings.Builder, rng *rand.Rand) {
	body := section.Value
	for _, i := range rng.Perm(len(body.Pairs)) {
		one := &yaml.Node{Kind: yaml.Mapping, Pairs: body.Pairs[i : i+1]}
		fmt.Fprintf(&parts[rng.IntN(len(parts))], "---\n%s: %s\n", section.Key.Value, inFlow(one, rng))
	}
	if len(body.Items) > 0 {
		fmt.Fprintf(&parts[rng.IntN(len(parts))], "---\n%s: %s\n", section.Key.Value, inFlow(body, rng))
	}
}

// inFlow writes a node in flow style with its keys shuffled.
func inFlow(n *yaml.Node, rng *rand.Rand) string {
	var list []string
	switch {
	case n.Kind == yaml.Mapping:
		for _, i := range rng.Perm(len(n.Pairs)) {
			list = append(list, n.Pairs[i].Key.Value+": "+inFlow(n.Pairs[i].Value, rng))
		}
		return "{" + strings.Join(list, ", ") + "}"
	case n.Kind == yaml.Sequence:
		for _, item := range n.Items {
			list = append(list, inFlow(item, rng))
		}
		return "[" + strings.Join(list, ", ") + "]"
	case n.Style == yaml.Plain:
		return n.Value
	}
	return fmt.Sprintf("%q", n.Value)
}

// placeless is a blade's state without the places, which differ when the files do.
func placeless(t *testing.T, f *Fleet, name BladeName) string {
	t.Helper()
	b, err := Derive(f, name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Services {
		b.Services[i].Pos = Pos{}
	}
	for _, rules := range [][]Rule{b.Rules, b.Hosts} {
		for i := range rules {
			rules[i].Pos = Pos{}
		}
	}
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + fmt.Sprint(b.GuestAddresses)
}

// TestOrderDoesNotMatter: files and keys in any order derive the same bytes.
func TestOrderDoesNotMatter(t *testing.T) {
	files := append(read(t, "testdata/fleets/nantes"), File{Name: "99.yaml", Data: []byte("zones: [lab]\n")})
	f, ds := Load(files)
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	want := map[BladeName]string{}
	for _, b := range f.Blades {
		want[b.Name] = placeless(t, f, b.Name)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		permuted := shuffled(t, files, rng)
		g, ds := Load(permuted)
		if len(ds) > 0 {
			t.Fatalf("round %d:\n%s", round, ds)
		}
		for _, b := range f.Blades {
			if placeless(t, g, b.Name) != want[b.Name] {
				t.Fatalf("round %d: blade %s differs for\n%s", round, b.Name, permuted)
			}
		}
	}
}

// TestDeriveOwnsItsData: what a caller does to a derived blade does not reach the fleet.
func TestDeriveOwnsItsData(t *testing.T) {
	f := nantes(t)
	want := placeless(t, f, "lame-l1")
	b, err := Derive(f, "lame-l1")
	if err != nil {
		t.Fatal(err)
	}
	scribble(&b)
	if got := placeless(t, f, "lame-l1"); got != want {
		t.Error("a change in a derived blade changed the fleet")
	}
}

// scribble spoils every slice of a blade.
func scribble(b *Blade) {
	for i := range b.Segments {
		slices.Reverse(b.Segments[i].Subnets)
		slices.Reverse(b.Segments[i].Routers)
	}
	for i := range b.Peers {
		slices.Reverse(b.Peers[i].Addresses)
		clear(b.Peers[i].Serves)
	}
	for i := range b.Services {
		clear(b.Services[i].VIPs)
		clear(b.Services[i].Ports)
		clear(b.Services[i].Clients)
	}
	for i := range b.Rules {
		clear(b.Rules[i].From)
		clear(b.Rules[i].Allow)
	}
	for i := range b.Guests {
		g := &b.Guests[i]
		clear(g.Serves)
		for j := range g.Ports {
			clear(g.Ports[j].Addresses)
		}
		if g.Balancer != nil {
			clear(g.Balancer.Announce.Routers)
			if g.Balancer.Announce.OSPF != nil {
				g.Balancer.Announce.OSPF.Area = "scribbled"
			}
		}
	}
	clear(b.GuestAddresses)
}
