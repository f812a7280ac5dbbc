package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// editable is a policy as lines, so that a test can change it one entry at a time.
type editable struct {
	files map[string][]string
	rng   *rand.Rand
}

func makeEditable(files []File, rng *rand.Rand) *editable {
	e := &editable{files: map[string][]string{}, rng: rng}
	for _, f := range files {
		e.files[f.Name] = strings.Split(strings.TrimSuffix(string(f.Data), "\n"), "\n")
	}
	return e
}

func (e *editable) clone() *editable {
	c := &editable{files: map[string][]string{}, rng: e.rng}
	for name, lines := range e.files {
		c.files[name] = slices.Clone(lines)
	}
	return c
}

func (e *editable) list() []File {
	var out []File
	for name, lines := range e.files {
		out = append(out, File{Name: name, Data: []byte(strings.Join(lines, "\n") + "\n")})
	}
	return out
}

// pick finds a random line with a text.
func (e *editable) pick(text string) (file string, line int) {
	var found []struct {
		file string
		line int
	}
	for name, lines := range e.files {
		for i, l := range lines {
			if strings.Contains(l, text) {
				found = append(found, struct {
					file string
					line int
				}{name, i})
			}
		}
	}
	if len(found) == 0 {
		return "", 0
	}
	x := found[e.rng.IntN(len(found))]
	return x.file, x.line
}

// swap replaces a text by another in a random line that has both marks.
func (e *editable) swap(mark, old, now string) {
	if file, i := e.pick(mark); file != "" {
		e.files[file][i] = strings.Replace(e.files[file][i], old, now, 1)
	}
}

// edit changes one thing. It may make a mistake: the caller throws that away.
func (e *editable) edit() string {
	n := e.rng.IntN
	edits := []struct {
		name string
		do   func()
	}{
		{"weight", func() { e.swap("weight: ", "weight: ", fmt.Sprintf("weight: %d", 1+n(9))) }},
		{"service of a server", func() { e.swap(" node-", "serves: {svc-", fmt.Sprintf("serves: {svc-%d: {weight: 3}, svc-", n(12))) }},
		{"blade of a server", func() {
			e.swap(" node-", "{blade: b", fmt.Sprintf("{blade: b%d, image: web, memory: 1GiB, serves: {svc-%d: {}}} # {blade: b", n(8), n(12)))
		}},
		{"address", func() { e.swap(" node-", "10.1", fmt.Sprintf("10.1%d.9.9, 10.1", n(2))) }},
		{"drained server", func() { e.swap(" node-", "{blade", "{drain: true, blade") }},
		{"pids", func() { e.swap(" node-", "{blade", fmt.Sprintf("{pids: %d, blade", 16+n(9))) }},
		{"io weight", func() { e.swap(" node-", "{blade", fmt.Sprintf("{io-weight: %d, blade", 99+n(3))) }},
		{"disk", func() { e.swap(" node-", "{blade", fmt.Sprintf("{disk: %dMiB, blade", 16+n(9))) }},
		{"virtual machine", func() { e.swap(" node-", "{blade", "{driver: kvm, blade") }},
		{"drained director", func() { e.swap(" dir-", "{blade", "{drain: true, blade") }},
		{"memory", func() { e.swap("image: web", "image: web", "image: web, memory: 2GiB") }},
		{"server gone", func() { e.drop(" node-") }},
		{"server to a file of its own", func() { e.move(" node-", "realservers:") }},
		{"director gone", func() { e.drop(" dir-") }},
		{"director to a file of its own", func() { e.move(" dir-", "directors:") }},
		{"director silent", func() { e.swap(" dir-", "announce: {ospf", "announce: none} # {ospf") }},
		{"director with VRRP", func() {
			e.swap(" dir-", "announce: {ospf", fmt.Sprintf("announce: {vrrp: {priority: %d}} # {ospf", 1+n(200)))
		}},
		{"VIP", func() { e.swap(" svc-", "vips: [", fmt.Sprintf("vips: [172.17.0.%d, ", 1+n(250))) }},
		{"ports", func() { e.swap(" svc-", "443/tcp", fmt.Sprintf("%d/udp", 1000+n(9))) }},
		{"mode", func() { e.swap(" svc-", "scheduler: wlc, mode: locality, remote: 1%", "scheduler: mh, mode: survive") }},
		{"sync", func() { e.swap(" dir-", "eth0:", "sync: 7, eth0:") }},
		{"spare", func() { e.swap(" node-", "serves:", "spare: true, serves:") }},
		{"sorry", func() { e.swap(" svc-", "ports:", fmt.Sprintf("sorry: node-%d, ports:", n(40))) }},
		{"service gone", func() { e.drop(" svc-") }},
		{"check", func() { e.swap(" svc-", "path: /health", fmt.Sprintf("path: /%d", n(3))) }},
		{"rule of names", func() {
			e.rule(fmt.Sprintf("{from: [node-%d], to: [dir-%d, 10.10.0.%d], allow: [%d/tcp]}", n(40), n(4), n(30), 1+n(99)))
		}},
		{"rule of roles", func() {
			e.rule(fmt.Sprintf("{from: [10.20.0.%d, realservers], to: [directors, 10.11.0.0/16], allow: [icmp, %d/udp]}", n(30), 1+n(99)))
		}},
		{"rule of prefixes", func() { e.rule("{from: [10.10.0.4/30], to: [any], allow: [7/tcp]}") }},
		{"rule gone", func() { e.drop(" out-") }},
		{"comment above", func() { f, _ := e.pick("zone: pub"); e.files[f] = slices.Insert(e.files[f], 0, "# moved") }},
		{"comment above guests", func() { e.files["20-guests.yaml"] = slices.Insert(e.files["20-guests.yaml"], 0, "# moved") }},
		{"routers", func() { e.swap("-ret: ", "routers: [10.2", fmt.Sprintf("routers: [10.2%d.0.7, 10.2", n(2))) }},
		{"trunk", func() { e.swap("trunk: eno1", "trunk: eno1", "trunk: eno3") }},
	}
	x := edits[n(len(edits))]
	x.do()
	return x.name
}

func (e *editable) drop(mark string) {
	if file, i := e.pick(mark); file != "" {
		e.files[file] = slices.Delete(e.files[file], i, i+1)
	}
}

func (e *editable) move(mark, section string) {
	if file, i := e.pick(mark); file != "" {
		e.files[fmt.Sprintf("guest-%d.yaml", e.rng.IntN(1e6))] = []string{section, e.files[file][i]}
		e.files[file] = slices.Delete(e.files[file], i, i+1)
	}
}

func (e *editable) rule(text string) {
	e.files["30-rules.yaml"] = append(e.files["30-rules.yaml"], fmt.Sprintf("  out-%d: %s", 1000+e.rng.IntN(1e6), text))
}

// whole is a blade's state as text, with what its JSON leaves out.
func whole(t *testing.T, b Blade, err error) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	text, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	out := string(text) + fmt.Sprint(b.GuestAddresses)
	for _, g := range b.Guests {
		out += fmt.Sprint(g.Pos)
	}
	return out
}

// TestDeriverAgrees changes a policy step by step: what a Loader and a Deriver that remember make of it is what those without a
// memory make of it, on every blade.
func TestDeriverAgrees(t *testing.T) {
	const blades = 12
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 1))
		policy := makeEditable(scaled(blades, 40, 12), rng)
		var loader Loader
		derivers := map[BladeName]*Deriver{}
		for i := range blades {
			name := BladeName(fmt.Sprintf("b%d", i))
			derivers[name] = NewDeriver(name)
		}
		taken := map[string]int{}
		for step := range 100 {
			next := policy.clone()
			what := next.edit()
			files := next.list()
			want, wantFound := Load(files)
			got, gotFound := loader.Load(files)
			if diff := cmp.Diff(wantFound.String(), gotFound.String()); diff != "" {
				t.Fatalf("seed %d, step %d, %s: findings (-want +got):\n%s", seed, step, what, diff)
			}
			if wantFound.HasErrors() {
				continue
			}
			policy = next
			taken[what]++
			for name, deriver := range derivers {
				if rng.IntN(3) == 0 {
					continue // so that it catches up with more than one change
				}
				b, err := Derive(want, name)
				again, errAgain := deriver.Derive(got)
				if err != nil || errAgain != nil || !reflect.DeepEqual(b, again) {
					t.Fatalf("seed %d, step %d, %s, blade %s (-want +got):\n%s", seed, step, what, name, cmp.Diff(whole(t, b, err), whole(t, again, errAgain)))
				}
			}
		}
		if seed == 0 {
			t.Log(taken)
		}
	}
}

// TestDeriverRemembersTheRightThings goes through changes that chance seldom draws. Each step replaces one text by another, everywhere.
func TestDeriverRemembersTheRightThings(t *testing.T) {
	const literal = "  mixed: {from: [realservers, 10.10.0.2, \"10.10.0.0/30\"], to: [any], allow: [9/tcp]}\n"
	const checked = `:f::3"], ports: [80/tcp, 443/tcp], balance: {scheduler: wlc, mode: locality, remote: 1%}, check: {http: {port: 80, path: `
	cases := map[string][][2]string{
		"a sorry server moves":                    {{"svc-0: {zone", "svc-0: {sorry: node-2, zone"}, {"eth1: {network: pub-svc, addresses: [10.10.0.3", "eth1: {network: pub-svc, addresses: [10.10.0.77"}},
		"a sorry server is another":               {{"svc-0: {zone", "svc-0: {sorry: node-2, zone"}, {"sorry: node-2", "sorry: node-6"}, {"sorry: node-6, ", ""}},
		"a rule names an address that leaves":     {{"rules:\n", "rules:\n" + literal}, {"  node-0:", "  #node-0:"}},
		"a service leaves, returns and changes":   {{"node-0: {blade: b0, image: web, serves: {", "node-0: {blade: b0, image: web, serves: {svc-2: {}, "}, {"svc-2:", "svc-9:"}, {"svc-9:", "svc-2:"}, {checked + "/health", checked + "/other"}},
		"the director of a blade leaves, returns": {{"  dir-0:", "  #dir-0:"}, {"weight: 100", "weight: 5"}, {"  #dir-0:", "  dir-0:"}},
		"a rule comes to concern the zone":        {{"rules:\n", "rules:\n  wide: {from: [10.10.9.0/24], to: [192.0.2.1], allow: [9/tcp]}\n"}, {"10.10.0.3", "10.10.9.3"}, {"10.10.9.3", "10.10.0.3"}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			var text string
			for _, f := range scaled(4, 8, 4)[:2] {
				text += string(f.Data)
			}
			text = strings.Replace(text, "realservers:\n", "rules:\n  a: {from: [any], to: [realservers], allow: [1/tcp]}\nrealservers:\n", 1)
			deriver := NewDeriver("b0")
			var loader Loader
			for _, step := range append([][2]string{{"zone", "zone"}}, steps...) {
				if !strings.Contains(text, step[0]) {
					t.Fatalf("no %q in the policy", step[0])
				}
				text = strings.ReplaceAll(text, step[0], step[1])
				f, ds := loader.Load([]File{{Name: "a.yaml", Data: []byte(text)}})
				if ds.HasErrors() {
					t.Fatal(ds)
				}
				want, err := Derive(f, "b0")
				got, errGot := deriver.Derive(f)
				if diff := cmp.Diff(whole(t, want, err), whole(t, got, errGot)); diff != "" {
					t.Fatalf("after %q (-want +got):\n%s", step, diff)
				}
			}
		})
	}
}

// TestDeriverLeavesBladesAlone: the blade of the call before is as it was.
func TestDeriverLeavesBladesAlone(t *testing.T) {
	files, more := spawnedInto(t, 20, 100, 20)
	more[1].Data = []byte(strings.Replace(string(more[1].Data), "weight: 100", "weight: 7", 3))
	var loader Loader
	first, ds := loader.Load(files)
	if ds.HasErrors() {
		t.Fatal(ds)
	}
	deriver := NewDeriver("b0")
	b, err := deriver.Derive(first)
	before := whole(t, b, err)
	second, ds := loader.Load(more)
	if ds.HasErrors() {
		t.Fatal(ds)
	}
	if _, err := deriver.Derive(second); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, whole(t, b, nil)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// spawnedInto are two policies: a generated one, and the same with one more real server in a file of its own.
func spawnedInto(t testing.TB, blades, servers, services int) (without, with []File) {
	t.Helper()
	without = scaled(blades, servers, services)
	fleet, ds := Load(without)
	if len(ds) > 0 {
		t.Fatal(ds[0])
	}
	entry, err := Allocate(fleet, SpawnRequest{Role: RoleRealServer, Name: "spawned", Blade: "b0", Services: []ServiceName{"svc-0"}, Image: "web"})
	if err != nil {
		t.Fatal(err)
	}
	return without, append(slices.Clone(without), entry)
}

// TestDeriverDoesTheChangeOnly counts the allocations of one derivation after a guest came or went: they do not grow with the
// fleet.
func TestDeriverDoesTheChangeOnly(t *testing.T) {
	allocations := func(scale int) float64 {
		without, with := spawnedInto(t, 10*scale, 100*scale, 20*scale)
		var loader Loader
		small, _ := loader.Load(without)
		large, _ := loader.Load(with)
		deriver := NewDeriver("b0")
		fleets, i := []*Fleet{small, large}, 0
		return testing.AllocsPerRun(10, func() {
			if _, err := deriver.Derive(fleets[i%2]); err != nil {
				t.Fatal(err)
			}
			i++
		})
	}
	small, large := allocations(1), allocations(20)
	t.Logf("%.0f allocations in a fleet of 100 real servers, %.0f in one of 2 000", small, large)
	if large > small*1.5 {
		t.Errorf("%.0f allocations in a fleet of 2 000 real servers, %.0f in one of 100", large, small)
	}
}

// BenchmarkSpawned is what a daemon does when a guest was added to, or taken from, 1 000 blades, 10 000 real servers and 2 000
// services, on a blade with a director: load, check and derive.
func BenchmarkSpawned(b *testing.B) {
	without, with := spawnedInto(b, 1000, 10_000, 2000)
	var loader Loader
	deriver := NewDeriver("b0")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		files := without
		if i++; i%2 == 0 {
			files = with
		}
		f, ds := loader.Load(files)
		if ds.HasErrors() {
			b.Fatal(ds[0])
		}
		if _, err := deriver.Derive(f); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSpawnedDerive is the derivation in it alone.
func BenchmarkSpawnedDerive(b *testing.B) {
	without, with := spawnedInto(b, 1000, 10_000, 2000)
	var loader Loader
	small, _ := loader.Load(without)
	large, _ := loader.Load(with)
	fleets, i := []*Fleet{small, large}, 0
	deriver := NewDeriver("b0")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := deriver.Derive(fleets[i%2]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
