package director

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests/director/health"
	"github.com/bladenet/bladenet/policy"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// known makes a health of which the named checks are up and those with a leading ! are down.
func known(checks ...string) Health {
	h := Health{}
	for _, c := range checks {
		if c[0] == '!' {
			h[c[1:]] = health.Result{ID: c[1:], State: health.Down, Reason: "refused"}
		} else {
			h[c] = health.Result{ID: c, State: health.Up}
		}
	}
	return h
}

func dest(check string, weight, remote int) policy.Destination {
	return policy.Destination{Guest: policy.GuestName(check), Check: check, Weight: weight, Remote: remote}
}

func drainedDest(check string) policy.Destination {
	d := dest(check, 100, 0)
	d.Drained = true
	return d
}

func spareDest(check string) policy.Destination {
	d := dest(check, 30, 0)
	d.Spare = true
	return d
}

func TestDecideWeights(t *testing.T) {
	sorry := policy.Destination{Guest: "s", Weight: 100, Sorry: true}
	checkedSorry := policy.Destination{Guest: "s", Check: "s", Weight: 100, Sorry: true}
	local := []policy.Destination{dest("l1", 100, 0), dest("l2", 50, 0), dest("r1", 0, 100), dest("r2", 1, 80)}
	for name, c := range map[string]struct {
		mode    string
		dests   []policy.Destination
		health  Health
		weights []int
		reasons []string
	}{
		"all up":                           {"spread", []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("a", "b"), []int{100, 50}, []string{"", ""}},
		"one down":                         {"spread", []policy.Destination{dest("a", 100, 0), dest("b", 50, 0)}, known("!a", "b"), []int{0, 50}, []string{"down: refused", ""}},
		"not checked yet":                  {"survive", []policy.Destination{dest("a", 100, 0)}, known(), []int{0}, []string{"not checked yet"}},
		"no check at all":                  {"spread", []policy.Destination{{Guest: "a", Weight: 7}}, known(), []int{7}, []string{""}},
		"locality, all up":                 {"locality", local, known("l1", "l2", "r1", "r2"), []int{100, 50, 0, 1}, []string{"", "", "", ""}},
		"locality, one local left":         {"locality", local, known("!l1", "l2", "r1", "r2"), []int{0, 50, 0, 1}, []string{"down: refused", "", "", ""}},
		"locality, no local left":          {"locality", local, known("!l1", "!l2", "r1", "r2"), []int{0, 0, 100, 80}, []string{"down: refused", "down: refused", "no local server is up", "no local server is up"}},
		"locality, remote down as well":    {"locality", local, known("!l1", "!l2", "!r1", "r2"), []int{0, 0, 0, 80}, []string{"down: refused", "down: refused", "down: refused", "no local server is up"}},
		"locality, local one of weight 0":  {"locality", []policy.Destination{dest("l1", 0, 0), dest("r1", 0, 100)}, known("l1", "r1"), []int{0, 100}, []string{"", "no local server is up"}},
		"remote weight only in locality":   {"spread", []policy.Destination{dest("a", 10, 100)}, known("a"), []int{10}, []string{""}},
		"drained":                          {"spread", []policy.Destination{drainedDest("a"), dest("b", 50, 0)}, known("a", "b"), []int{0, 50}, []string{"drained", ""}},
		"drained and down":                 {"spread", []policy.Destination{drainedDest("a"), dest("b", 50, 0)}, known("!a", "b"), []int{0, 50}, []string{"down: refused", ""}},
		"locality, the local one drained":  {"locality", []policy.Destination{drainedDest("l"), dest("r", 0, 50)}, known("l", "r"), []int{0, 50}, []string{"drained", "no local server is up"}},
		"sorry works for a drained one":    {"spread", []policy.Destination{drainedDest("a"), sorry}, known("a"), []int{0, 100}, []string{"drained", "sorry server; no other is up"}},
		"sorry rests":                      {"spread", []policy.Destination{dest("a", 10, 0), sorry}, known("a"), []int{10, 0}, []string{"", "sorry server; others are up"}},
		"sorry works":                      {"spread", []policy.Destination{dest("a", 10, 0), sorry}, known("!a"), []int{0, 100}, []string{"down: refused", "sorry server; no other is up"}},
		"sorry rests for remote ones":      {"locality", []policy.Destination{dest("l", 10, 0), dest("r", 0, 10), sorry}, known("!l", "r"), []int{0, 10, 0}, []string{"down: refused", "no local server is up", "sorry server; others are up"}},
		"sorry works when none has weight": {"spread", []policy.Destination{dest("a", 0, 0), sorry}, known("a"), []int{0, 100}, []string{"", "sorry server; no other is up"}},
		"spare rests":                      {"spread", []policy.Destination{dest("a", 10, 0), spareDest("x")}, known("a", "x"), []int{10, 0}, []string{"", "spare; the others suffice"}},
		"spare is off":                     {"spread", []policy.Destination{dest("a", 10, 0), spareDest("x")}, known("a", "!x"), []int{10, 0}, []string{"", "spare: down: refused"}},
		"spare works":                      {"spread", []policy.Destination{dest("a", 10, 0), spareDest("x")}, known("!a", "x"), []int{0, 30}, []string{"down: refused", ""}},
		"spare before sorry":               {"spread", []policy.Destination{dest("a", 10, 0), spareDest("x"), sorry}, known("!a", "x"), []int{0, 30, 0}, []string{"down: refused", "", "sorry server; others are up"}},
		"sorry until the spare is up":      {"spread", []policy.Destination{dest("a", 10, 0), spareDest("x"), sorry}, known("!a", "!x"), []int{0, 0, 100}, []string{"down: refused", "spare: down: refused", "sorry server; no other is up"}},
		"spare works for a drained one":    {"spread", []policy.Destination{drainedDest("a"), spareDest("x")}, known("a", "x"), []int{0, 30}, []string{"drained", ""}},
		"sorry itself down":                {"spread", []policy.Destination{dest("a", 10, 0), checkedSorry}, known("!a", "!s"), []int{0, 0}, []string{"down: refused", "down: refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := policy.VirtualService{Service: "www", VIP: addr("203.0.113.10"), Protocol: "tcp", Port: 80, Mode: c.mode, Quorum: 1, Destinations: c.dests}
			d := Decide(policy.Balancer{Services: []policy.VirtualService{v}}, nil, c.health, Memory{})
			if diff := cmp.Diff(c.weights, d.Services[0].Weights); diff != "" {
				t.Errorf("weights (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(c.reasons, d.Services[0].Reasons); diff != "" {
				t.Errorf("reasons (-want +got)\n%s", diff)
			}
		})
	}
}

// TestDecideQuorum walks one service through a series of healths, remembering as the controller does.
func TestDecideQuorum(t *testing.T) {
	three := []policy.Destination{dest("a", 1, 0), dest("b", 1, 0), dest("c", 0, 1)}
	const none, one, two, all = 0, 1, 2, 3
	healths := []Health{known("!a", "!b", "!c"), known("a", "!b", "!c"), known("a", "b", "!c"), known("a", "b", "c")}
	for name, c := range map[string]struct {
		quorum, hysteresis int
		up                 []int
		want               string // q: has its quorum, .: not
	}{
		"one of three":                 {1, 0, []int{none, one, two, one, none, all}, ".qqq.q"},
		"two of three":                 {2, 0, []int{one, two, one, two, all, none}, ".q.qq."},
		"two, falls one deeper":        {2, 1, []int{one, two, one, none, one, two}, ".qq..q"},
		"two, never on none":           {2, 5, []int{two, one, none}, "qq."},
		"all of three, all are enough": {3, 2, []int{two, all, two, one, none, two}, ".qqq.."},
		"no quorum wanted":             {0, 0, []int{none, one}, "qq"},
	} {
		t.Run(name, func(t *testing.T) {
			v := policy.VirtualService{Service: "www", VIP: addr("203.0.113.10"), Protocol: "tcp", Port: 80, Mode: "locality", Quorum: c.quorum, Hysteresis: c.hysteresis, Destinations: three}
			var had map[ServiceKey]bool
			got := ""
			for _, up := range c.up {
				d := Decide(policy.Balancer{Services: []policy.VirtualService{v}}, nil, healths[up], Memory{Quorums: had})
				had = d.quorums()
				if d.Services[0].Up != up {
					t.Errorf("%d counted, want %d", d.Services[0].Up, up)
				}
				if d.Services[0].Quorum {
					got += "q"
				} else {
					got += "."
				}
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestSpareOnesFillTheQuorum walks a service with two real servers and two spare ones, a quorum of two, and a hysteresis of one.
func TestSpareOnesFillTheQuorum(t *testing.T) {
	v := policy.VirtualService{
		Service: "www", VIP: addr("203.0.113.10"), Protocol: "tcp", Port: 80, Mode: "spread", Quorum: 2, Hysteresis: 1,
		Destinations: []policy.Destination{dest("a", 10, 0), dest("b", 10, 0), spareDest("x"), spareDest("y")},
	}
	var had map[ServiceKey]bool
	for i, c := range []struct {
		health        Health
		quorum, short bool
		up            int
		weights       []int
	}{
		{known("!a", "!b", "!x", "!y"), false, true, 0, []int{0, 0, 0, 0}},
		{known("!a", "!b", "x", "!y"), false, true, 1, []int{0, 0, 30, 0}},
		{known("!a", "!b", "x", "y"), true, true, 2, []int{0, 0, 30, 30}},
		{known("a", "!b", "x", "y"), true, false, 1, []int{10, 0, 0, 0}}, // one is enough for who has had the quorum
		{known("!a", "!b", "x", "y"), true, true, 2, []int{0, 0, 30, 30}},
		{known("a", "b", "x", "y"), true, false, 2, []int{10, 10, 0, 0}},
		{known("a", "b", "!x", "!y"), true, false, 2, []int{10, 10, 0, 0}},
	} {
		d := Decide(policy.Balancer{Services: []policy.VirtualService{v}}, nil, c.health, Memory{Quorums: had})
		had = d.quorums()
		s := d.Services[0]
		if s.Quorum != c.quorum || s.Short != c.short || s.Up != c.up || !cmp.Equal(s.Weights, c.weights) {
			t.Errorf("step %d: %+v, want quorum %t, short %t, %d up, weights %v", i, s, c.quorum, c.short, c.up, c.weights)
		}
	}
}

func TestDecideVIPs(t *testing.T) {
	one, two, other := addr("203.0.113.10"), addr("203.0.113.11"), addr("203.0.113.12")
	svc := func(name string, vip netip.Addr, port uint16, dests ...policy.Destination) policy.VirtualService {
		return policy.VirtualService{Service: policy.ServiceName(name), VIP: vip, Protocol: "tcp", Port: port, Quorum: 1, Destinations: dests}
	}
	sorry := policy.Destination{Guest: "s", Weight: 1, Sorry: true}
	b := policy.Balancer{Services: []policy.VirtualService{
		svc("www", one, 80, dest("a", 1, 0)), svc("git", one, 22, dest("g", 1, 0)),
		svc("mail", two, 443, dest("m", 1, 0), sorry),
	}}
	vips := []policy.VIP{{Address: one}, {Address: two}, {Address: other}}
	for name, c := range map[string]struct {
		health Health
		want   []VIPDecision
	}{
		"all up":                       {known("a", "g", "m"), []VIPDecision{{one, true, ""}, {two, true, ""}, {other, false, "no service of this director"}}},
		"one service of a VIP is down": {known("!a", "g", "m"), []VIPDecision{{one, true, ""}, {two, true, ""}, {other, false, "no service of this director"}}},
		"all are down, the sorry server is left": {known("!a", "!g", "!m"), []VIPDecision{
			{one, false, "www has 0 of 1 real servers that it needs"}, {two, true, ""}, {other, false, "no service of this director"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(b, vips, c.health, Memory{})
			if diff := cmp.Diff(c.want, d.VIPs, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestDecideProperties holds of random services: who is down has no weight, who has weight is up; a service with anybody up
// who may take connections has a weight somewhere, whatever probes through its VIP say; and the sorry server never works beside another.
func TestDecideProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		v := policy.VirtualService{Mode: []string{"locality", "survive", "spread"}[r.IntN(3)], Quorum: r.IntN(3), Hysteresis: r.IntN(3)}
		h, unheard := Health{}, Unheard{}
		for i := range 1 + r.IntN(5) {
			id := string(rune('a' + i))
			d := dest(id, r.IntN(3)*10, 0)
			if v.Mode == "locality" && r.IntN(2) == 0 {
				d.Remote = 1 + r.IntN(10)
			}
			d.Sorry = r.IntN(6) == 0
			v.Destinations = append(v.Destinations, d)
			h[id] = health.Result{State: health.State(r.IntN(3))}
			if r.IntN(3) == 0 {
				unheard[Hop{KeyOf(v), d.Guest}] = r.IntN(3) > 0
			}
		}
		s := decideHeard(v, h, Memory{Unheard: unheard, Quorums: map[ServiceKey]bool{KeyOf(v): r.IntN(2) == 0}})
		able, weighs, sorryWeighs := false, false, false
		for i, d := range v.Destinations {
			up := h[d.Check].State == health.Up
			if !up && s.Weights[i] != 0 {
				t.Fatalf("%+v %v: %v", v, h, s)
			}
			able = able || up && !d.Sorry && max(d.Weight, d.Remote) > 0
			weighs = weighs || !d.Sorry && s.Weights[i] > 0
			sorryWeighs = sorryWeighs || d.Sorry && s.Weights[i] > 0
		}
		if able && !weighs || sorryWeighs && weighs {
			t.Fatalf("%+v %v: %v", v, h, s)
		}
	}
}

func TestWell(t *testing.T) {
	a := state("one")
	d := Decide(a.Balancer, a.Inside.VIPs, Well(a.Balancer), Memory{})
	if diff := cmp.Diff([]int{100, 100}, d.Services[0].Weights); diff != "" || !d.VIPs[0].Up {
		t.Errorf("(-want +got)\n%s%+v", diff, d.VIPs)
	}
}
