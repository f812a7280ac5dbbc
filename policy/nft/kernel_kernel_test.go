//go:build kernel

package nft

import (
	"bytes"
	"context"
	"net/netip"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
)

// namespace puts the test's thread into a fresh network namespace until the test ends. Programs that the test starts and sockets
// that it opens are in it as well.
func namespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	before, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer unix.Close(before)
		if err := unix.Setns(before, unix.CLONE_NEWNET); err != nil {
			t.Fatal(err) // the thread stays locked, and so is thrown away
		}
		runtime.UnlockOSThread()
	})
}

func open(t testing.TB) *Kernel {
	t.Helper()
	k, err := NewKernel("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func nantes(t testing.TB, name policy.BladeName) policy.Blade {
	t.Helper()
	files, err := policy.ReadDir(filepath.Join("..", "testdata", "fleets", "nantes"))
	if err != nil {
		t.Fatal(err)
	}
	f, diagnostics := policy.Load(files)
	for _, d := range diagnostics {
		t.Fatal(d)
	}
	b, err := policy.Derive(f, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nantesBlades() []policy.BladeName {
	return []policy.BladeName{"lame-l1", "lame-l2", "lame-t1", "lame-t2", "lame-c1", "lame-c2"}
}

// tool runs nft, the oracle.
func tool(t testing.TB, input string, args ...string) string {
	t.Helper()
	c := exec.Command("nft", args...)
	c.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String()
}

// bring makes the kernel hold what is wanted and returns the steps it took.
func bring(t testing.TB, k *Kernel, want filter.Ruleset) []Step {
	t.Helper()
	ctx := context.Background()
	have, err := k.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Plan(want, have)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(ctx, steps); err != nil {
		t.Fatal(err)
	}
	return steps
}

func planned(t testing.TB, k *Kernel, want filter.Ruleset) []string {
	t.Helper()
	have, err := k.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	steps, err := Plan(want, have)
	if err != nil {
		t.Fatal(err)
	}
	return lines(steps)
}

func lines(steps []Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	return out
}

// listings loads a ruleset twice, by the tool from its text and by our messages, and returns both listings.
func listings(t *testing.T, text string, ours filter.Ruleset) (oracle, got string) {
	t.Helper()
	t.Run("tool", func(t *testing.T) {
		namespace(t)
		tool(t, text, "-f", "-")
		oracle = tool(t, "", "list", "ruleset")
	})
	t.Run("library", func(t *testing.T) {
		namespace(t)
		bring(t, open(t), ours)
		got = tool(t, "", "list", "ruleset")
	})
	if oracle == "" || got == "" {
		t.Fatal("an empty listing compares with anything")
	}
	return oracle, got
}

func TestListingsAgree(t *testing.T) {
	for _, name := range nantesBlades() {
		t.Run(string(name), func(t *testing.T) {
			want := filter.Compile(nantes(t, name))
			oracle, got := listings(t, want.Text(), want)
			if diff := cmp.Diff(oracle, got); diff != "" {
				t.Errorf("listing (-nft +ours):\n%s", diff)
			}
		})
	}
}

// TestListingsCanDisagree shows that the oracle sees one wrong port and one wrong verdict.
func TestListingsCanDisagree(t *testing.T) {
	good := filter.Compile(nantes(t, "lame-l1"))
	for name, spoil := range map[string]func(policy.Blade) filter.Ruleset{
		"port": func(b policy.Blade) filter.Ruleset {
			b.Services[0].Ports[0].First--
			return filter.Compile(b)
		},
		"verdict": func(b policy.Blade) filter.Ruleset {
			r := filter.Compile(b)
			chains := r.Tables[0].Chains
			i := slices.IndexFunc(chains, func(c filter.Chain) bool { return c.Name == "deny-spoof-mac" })
			chains[i].Rules[len(chains[i].Rules)-1].Statements[0] = filter.Decide{Kind: filter.Accept}
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			if oracle, got := listings(t, good.Text(), spoil(nantes(t, "lame-l1"))); oracle == got {
				t.Error("a wrong ruleset lists like the right one")
			}
		})
	}
}

func TestApplyTwiceIsApplyOnce(t *testing.T) {
	for _, name := range nantesBlades() {
		t.Run(string(name), func(t *testing.T) {
			namespace(t)
			k := open(t)
			want := filter.Compile(nantes(t, name))
			bring(t, k, want)
			if again := planned(t, k, want); len(again) > 0 {
				t.Errorf("after apply, still planned:\n%s", strings.Join(again, "\n"))
			}
		})
	}
}

// grown is lame-l1 with another VIP, more ports and another guest.
func grown(t testing.TB) policy.Blade {
	t.Helper()
	b := nantes(t, "lame-l1")
	b.Services[0].VIPs = append(b.Services[0].VIPs, netip.MustParseAddr("203.0.113.99"))
	b.Services[0].Ports = append(b.Services[0].Ports, policy.PortRange{Protocol: policy.TCP, First: 8080, Last: 8090})
	g := b.Guests[0]
	g.Name = "another"
	g.Ports = slices.Clone(g.Ports)
	for i := range g.Ports {
		g.Ports[i].Name = policy.PortName(g.Name, g.Ports[i].Interface)
		g.Ports[i].MAC = policy.MACOf(g.Name, g.Ports[i].Interface)
	}
	b.Guests = append(b.Guests, g)
	return b
}

// TestOwnChangesAreReadBack changes elements, alone and after a stranger did: what is observed then is what a fresh connection reads. Alone,
// only the sets that changed are read again, and of them what the kernel holds, not what was asked for.
func TestOwnChangesAreReadBack(t *testing.T) {
	for name, c := range map[string]struct {
		before, after []string // a stranger's change between our look and our change, and between our change and our look
		partly        bool
	}{
		"alone":                  {partly: true},
		"after a stranger":       {before: []string{"add", "element", "bridge", filter.BridgeTable, "vips4", "{ 192.0.2.77 }"}},
		"before a stranger":      {partly: true, after: []string{"delete", "element", "bridge", filter.BridgeTable, "named", "{ \"vlan120\" }"}},
		"after a strange table":  {before: []string{"add", "table", "ip", "stranger"}},
		"before a flush of ours": {partly: true, after: []string{"flush", "set", "bridge", filter.BridgeTable, "own4"}},
	} {
		t.Run(name, func(t *testing.T) {
			namespace(t)
			k, ctx := open(t), context.Background()
			bring(t, k, filter.Compile(nantes(t, "lame-l1")))
			have, err := k.Observe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := Plan(filter.Compile(grown(t)), have)
			if err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				tool(t, "", c.before...)
			}
			if err := k.Apply(ctx, steps); err != nil {
				t.Fatal(err)
			}
			if k.seen.valid != c.partly {
				t.Errorf("read again in part: %t, want %t", k.seen.valid, c.partly)
			}
			if c.after != nil {
				tool(t, "", c.after...)
			}
			got, err := k.Observe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			want, err := open(t).Observe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(State{}, tableState{}, tableName{}, part{}, counts{}, count{}), cmpopts.IgnoreFields(tableState{}, "table", "sets")); diff != "" {
				t.Errorf("a fresh look differs (-fresh +this one):\n%s", diff)
			}
			if c.partly && c.after == nil && k.seen.changed != nil {
				t.Error("what was read again is still to be read")
			}
		})
	}
}

// TestGrowthIsElements adds a VIP, a port and a guest, and takes them away: only elements change, and counters stay.
func TestGrowthIsElements(t *testing.T) {
	namespace(t)
	k := open(t)
	b := nantes(t, "lame-l1")
	bring(t, k, filter.Compile(b))
	setCounter(t, "spoof-mac", 4711)

	for _, want := range []filter.Ruleset{filter.Compile(grown(t)), filter.Compile(b)} {
		steps := bring(t, k, want)
		if len(steps) == 0 {
			t.Fatal("nothing changed")
		}
		for _, s := range steps {
			if s.replace || s.Verb != plan.Update {
				t.Errorf("not only elements: %s", s)
			}
		}
		if again := planned(t, k, want); len(again) > 0 {
			t.Errorf("after apply, still planned:\n%s", strings.Join(again, "\n"))
		}
		if got := tool(t, "", "list", "counter", "bridge", filter.BridgeTable, "spoof-mac"); !strings.Contains(got, "packets 4711") {
			t.Errorf("the counter did not survive:\n%s", got)
		}
	}
}

// TestAPortTakesItsCountersAlong removes a guest: what was counted for its port goes with it, in the same transaction, and a
// later replacement of the table does not bring it back; what was counted for others stays.
func TestAPortTakesItsCountersAlong(t *testing.T) {
	namespace(t)
	k := open(t)
	b := nantes(t, "lame-l1")
	table := filter.Compile(b).Tables[0]
	gone, stays := b.Guests[0].Ports[0].Name, b.Guests[1].Ports[0].Name
	padded := func(name string) string { return name + strings.Repeat("\x00", unix.IFNAMSIZ-len(name)) }
	bring(t, k, filter.Compile(b))
	counted := counts{hits: map[string]map[string]count{"hit-spoof-mac": {padded(gone): {packets: 3, bytes: 300}, padded(stays): {packets: 4, bytes: 400}}}}
	count := func() {
		t.Helper()
		if err := k.Apply(context.Background(), []Step{replaceStep(table, plan.Update, "", counted)}); err != nil {
			t.Fatal(err)
		}
	}
	fewer := nantes(t, "lame-l1")
	fewer.Guests = fewer.Guests[1:]
	ruled := nantes(t, "lame-l1")
	ruled.Guests = ruled.Guests[1:]
	ruled.Rules = ruled.Rules[1:]
	for name, want := range map[string]policy.Blade{"elements": fewer, "replacement": ruled} {
		count()
		bring(t, k, filter.Compile(want))
		got := tool(t, "", "list", "set", "bridge", filter.BridgeTable, "hit-spoof-mac")
		if strings.Contains(got, gone) || !strings.Contains(got, stays) {
			t.Errorf("%s: want %s and not %s in\n%s", name, stays, gone, got)
		}
		if again := planned(t, k, filter.Compile(want)); len(again) > 0 {
			t.Errorf("%s: still planned: %v", name, again)
		}
	}
}

// setCounter gives a counter of the bridge table a value that packets would take long to reach, by replacing the table.
func setCounter(t testing.TB, name string, packets uint64) {
	t.Helper()
	k := open(t)
	table := filter.Compile(nantes(t, "lame-l1")).Tables[0]
	keep := counts{named: map[string]count{name: {packets: packets, bytes: 64 * packets}}}
	if err := k.Apply(context.Background(), []Step{replaceStep(table, plan.Update, "", keep)}); err != nil {
		t.Fatal(err)
	}
}

// TestReplacementKeepsCounters changes the static part, so that the table is written anew with the counters' values.
func TestReplacementKeepsCounters(t *testing.T) {
	namespace(t)
	k := open(t)
	b := nantes(t, "lame-l1")
	bring(t, k, filter.Compile(b))
	setCounter(t, "vip-arp", 1234)
	b.Rules = append(b.Rules, policy.Rule{Name: "new-rule", FromAny: true, To: []netip.Prefix{netip.MustParsePrefix("198.51.100.11/32")}, Allow: []policy.PortRange{{Protocol: policy.TCP, First: 25, Last: 25}}})
	steps := bring(t, k, filter.Compile(b))
	if len(steps) != 1 || !steps[0].replace {
		t.Fatalf("a new rule is a new table, got:\n%s", strings.Join(lines(steps), "\n"))
	}
	if got := tool(t, "", "list", "counter", "bridge", filter.BridgeTable, "vip-arp"); !strings.Contains(got, "packets 1234") {
		t.Errorf("the counter did not survive:\n%s", got)
	}
}

// TestForeignChangesAreSeen damages our tables in the ways a stranger can, and wants each repaired in one go.
func TestForeignChangesAreSeen(t *testing.T) {
	for name, damage := range map[string][]string{
		"flush ruleset":  {"flush", "ruleset"},
		"delete table":   {"delete", "table", "bridge", filter.BridgeTable},
		"flush chain":    {"flush", "chain", "bridge", filter.BridgeTable, "judge"},
		"add rule":       {"insert", "rule", "bridge", filter.BridgeTable, "forward", "accept"},
		"add element":    {"add", "element", "bridge", filter.BridgeTable, "vips4", "{ 192.0.2.77 }"},
		"delete element": {"delete", "element", "bridge", filter.BridgeTable, "named", "{ \"vlan120\" }"},
		"flush set":      {"flush", "set", "bridge", filter.BridgeTable, "own4"},
		"add chain":      {"add", "chain", "inet", filter.HostTable, "extra"},
	} {
		t.Run(name, func(t *testing.T) {
			namespace(t)
			k := open(t)
			want := filter.Compile(nantes(t, "lame-l1"))
			bring(t, k, want)
			before, whole := ourListing(t), tool(t, "", "list", "ruleset")
			tool(t, "", damage...)
			if listing := tool(t, "", "list", "ruleset"); listing == whole {
				t.Fatal("nothing was damaged")
			}
			if steps := bring(t, k, want); len(steps) == 0 {
				t.Fatal("not seen")
			}
			if diff := cmp.Diff(before, ourListing(t)); diff != "" {
				t.Errorf("not repaired (-want +got):\n%s", diff)
			}
		})
	}
}

// ourListing lists our tables in one order, whichever was made first.
func ourListing(t testing.TB) string {
	t.Helper()
	return tool(t, "", "list", "table", "bridge", filter.BridgeTable) + tool(t, "", "list", "table", "inet", filter.HostTable)
}

func TestForeignTablesAreLeftAlone(t *testing.T) {
	namespace(t)
	const foreign = `table bridge stranger { chain forward { type filter hook forward priority 10; policy accept; }
}
table ip bladenet { set x { type ipv4_addr; elements = { 192.0.2.1 } }
}
`
	tool(t, foreign, "-f", "-")
	before := tool(t, "", "list", "ruleset")
	k := open(t)
	bring(t, k, filter.Compile(nantes(t, "lame-l1")))
	tool(t, "", "delete", "table", "bridge", filter.BridgeTable)
	tool(t, "", "delete", "table", "inet", filter.HostTable)
	if diff := cmp.Diff(before, tool(t, "", "list", "ruleset")); diff != "" {
		t.Errorf("foreign tables changed (-before +after):\n%s", diff)
	}
}

// TestRefusedBatchChangesNothing sends a batch whose last message cannot be done.
func TestRefusedBatchChangesNothing(t *testing.T) {
	namespace(t)
	k := open(t)
	want := filter.Compile(nantes(t, "lame-l1"))
	bring(t, k, want)
	before := tool(t, "", "list", "ruleset")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	table := want.Tables[0]
	i := slices.IndexFunc(table.Sets, func(s filter.Set) bool { return s.Name == "vips4" })
	bad := Step{table: table, set: table.Sets[i], add: []filter.Element{{From: "\x01\x02\x03\x04"}}, remove: nil}
	worse := Step{table: table, set: table.Sets[i], remove: []filter.Element{{From: "\x09\x09\x09\x09"}}}
	err := k.Apply(ctx, []Step{bad, worse})
	if err == nil || !strings.Contains(err.Error(), "delete elements from set vips4") {
		t.Fatalf("want an error that names the message, got %v", err)
	}
	if diff := cmp.Diff(before, tool(t, "", "list", "ruleset")); diff != "" {
		t.Errorf("half a batch was done (-before +after):\n%s", diff)
	}
}
