package ipvs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
	"github.com/bladenet/bladenet/test/golden"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// fleet is a director's services: each scheduler and option once, in both families.
func fleet() []policy.VirtualService {
	four := []policy.Destination{
		{Guest: "www-l1", Address: addr("10.12.1.11"), Port: 443, Weight: 100},
		{Guest: "www-t1", Address: addr("10.12.1.12"), Port: 443, Weight: 100},
		{Guest: "www-c1", Address: addr("10.12.1.13"), Port: 443, Weight: 50},
	}
	six := []policy.Destination{
		{Guest: "www-l1", Address: addr("2001:db8:120::11"), Port: 443, Weight: 100},
		{Guest: "www-t1", Address: addr("2001:db8:120::12"), Port: 443, Weight: 100},
	}
	return []policy.VirtualService{
		{Service: "www", VIP: addr("203.0.113.10"), Protocol: "tcp", Port: 443, Scheduler: "mh", Flags: []string{"mh-port", "mh-fallback"}, Destinations: four},
		{Service: "cas", VIP: addr("203.0.113.11"), Protocol: "tcp", Port: 443, Scheduler: "wlc", Persistence: 5 * time.Minute, Destinations: four[:2]},
		{Service: "dns", VIP: addr("203.0.113.53"), Protocol: "udp", Port: 443, Scheduler: "rr", Destinations: four[:1]},
		{Service: "www", VIP: addr("2001:db8:5::10"), Protocol: "tcp", Port: 443, Scheduler: "sh", Flags: []string{"sh-fallback"}, Destinations: six},
		{Service: "cas", VIP: addr("2001:db8:5::11"), Protocol: "tcp", Port: 443, Scheduler: "wrr", Persistence: time.Minute, Destinations: six[:1]},
	}
}

// wanted is the table with every destination at its policy's weight.
func wanted(t testing.TB, services []policy.VirtualService) Table {
	t.Helper()
	weights := make([][]int, len(services))
	for i, s := range services {
		for _, d := range s.Destinations {
			weights[i] = append(weights[i], d.Weight)
		}
	}
	table, err := Wanted(services, weights, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// model is a table that answers as the kernel does, and fails one operation on demand.
type model struct {
	table Table
	fail  int // the operation that fails, counted from 1; 0: none
	done  int
}

var errInjected = errors.New("injected")

func (m *model) steps(_ context.Context, steps []Step) ([]error, error) {
	results := make([]error, len(steps))
	for i, s := range steps {
		results[i] = m.step(s)
	}
	return results, nil
}

func (m *model) step(s Step) error {
	if m.done++; m.done == m.fail {
		return errInjected
	}
	i := slices.IndexFunc(m.table.Services, func(x Service) bool { return x.Key == s.Service.Key })
	if s.Op == AddService {
		if i >= 0 {
			return errors.New("service exists")
		}
		m.table.Services = append(m.table.Services, s.Service)
		return nil
	}
	if i < 0 {
		return errors.New("no such service")
	}
	svc := &m.table.Services[i]
	if s.Op == SetService {
		dests := svc.Destinations
		*svc = s.Service
		svc.Destinations = dests
		return nil
	}
	if s.Op == DelService {
		m.table.Services = slices.Delete(m.table.Services, i, i+1)
		return nil
	}
	j := slices.IndexFunc(svc.Destinations, func(d Destination) bool { return d.endpoint() == s.Destination.endpoint() })
	switch {
	case s.Op == AddDestination && j < 0:
		svc.Destinations = append(svc.Destinations, s.Destination)
	case s.Op == AddDestination || j < 0:
		return errors.New("destination exists, or not")
	case s.Op == SetDestination:
		svc.Destinations[j].Weight, svc.Destinations[j].Method = s.Destination.Weight, s.Destination.Method
	default:
		svc.Destinations = slices.Delete(svc.Destinations, j, j+1)
	}
	return nil
}

func clone(t Table) Table {
	out := Table{Overdue: t.Overdue, Services: slices.Clone(t.Services)}
	for i := range out.Services {
		out.Services[i].Destinations = slices.Clone(out.Services[i].Destinations)
	}
	return out
}

func rendered(t *testing.T, steps []Step) string {
	t.Helper()
	var b bytes.Buffer
	plain := make([]plan.Step, len(steps))
	for i, s := range steps {
		plain[i] = s.Step
	}
	if err := plan.Render(&b, plain); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPlanGolden(t *testing.T) {
	full := wanted(t, fleet())
	busy := clone(full)
	busy.Services[0].Destinations[1].Active = 7
	cases := map[string]struct{ want, have Table }{
		"from-nothing":  {full, Table{}},
		"nothing-to-do": {full, full},
		"server-down": {func() Table {
			w := clone(full)
			w.Services[0].Destinations[1].Weight = 0
			w.Services[0].Destinations[1].Reason = "down: connection refused"
			w.Services[0].Destinations[2].Weight = 80
			return w
		}(), full},
		"from-nothing-with-a-server-down": {func() Table {
			w := clone(full)
			w.Services = []Service{w.Services[0], w.Services[1]}
			w.Services[0].Destinations[1].Weight = 0
			w.Services[1].Destinations[1].Weight = 0
			return w
		}(), Table{}},
		"server-leaves-idle-and-busy": {func() Table {
			w := clone(full)
			w.Services[0].Destinations = w.Services[0].Destinations[:1]
			return w
		}(), busy},
		"server-lingered-long-enough": {func() Table {
			w := clone(full)
			w.Services[0].Destinations = slices.Delete(w.Services[0].Destinations, 1, 2)
			w.Overdue = map[DestinationKey]bool{{w.Services[0].Key, addr("10.12.1.12"), 443}: true}
			return w
		}(), busy},
		"service-leaves": {func() Table { w := clone(full); w.Services = w.Services[1:]; return w }(), busy},
		"service-changes": {full, func() Table {
			h := clone(full)
			h.Services[0].Scheduler = "rr"
			h.Services[0].Flags = flagHashed
			h.Services[1].Persistence = time.Second
			h.Services[3].Destinations[0].Method = Masquerade
			return h
		}()},
		"foreign-entries": {Table{}, Table{Services: []Service{
			{Key: Key{Mark: 7}, Scheduler: "fo", Destinations: []Destination{{Address: addr("10.0.0.1"), Method: Tunnel, Weight: 5}}},
			{Key: Key{Mark: 8, IPv6: true}, Scheduler: "nq"},
			{Key: Key{Address: addr("192.0.2.1"), Protocol: 132, Port: 9}, Scheduler: "rr", Destinations: []Destination{{Address: addr("10.0.0.1"), Port: 9, Weight: 1, Inactive: 3}}},
		}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, name+".golden", rendered(t, Plan(c.want, c.have)))
		})
	}
}

func TestRenderGolden(t *testing.T) {
	table := wanted(t, fleet())
	table.Services = append(table.Services,
		Service{Key: Key{Mark: 7}, Scheduler: "wlc", Flags: FlagOnePacket, Destinations: []Destination{{Address: addr("10.0.0.1"), Method: Tunnel, Weight: 5}}},
		Service{Key: Key{Mark: 8, IPv6: true}, Scheduler: "fo", Flags: FlagFallback | flagScheduler3},
		Service{Key: Key{Address: addr("192.0.2.1"), Protocol: 132, Port: 9}, Scheduler: "rr", Flags: FlagPersistent, Persistence: 30 * time.Second, Netmask: 0x00ffffff},
	)
	var b bytes.Buffer
	if err := Render(&b, table); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "ipvsadm"+".golden", b.String())
}

// random makes a table out of few keys, so that two of them have much in common.
func random(r *rand.Rand) Table {
	var t Table
	for port := range uint16(4) {
		if r.IntN(4) == 0 {
			continue
		}
		s := Service{
			Key:       Key{Address: addr("203.0.113.10"), Protocol: 6, Port: port + 1},
			Scheduler: []string{"mh", "wlc", "rr"}[r.IntN(3)], Flags: Flags(r.IntN(64)), Netmask: 0xffffffff, Persistence: time.Duration(r.IntN(3)) * time.Second,
		}
		for host := range byte(5) {
			if r.IntN(3) > 0 {
				s.Destinations = append(s.Destinations, Destination{
					Address: netip.AddrFrom4([4]byte{10, 0, 0, host + 1}), Port: port + 1, Method: Route,
					Weight: r.IntN(3) * 50, Base: 100,
				})
			}
		}
		t.Services = append(t.Services, s)
	}
	return t
}

// TestPlanConverges holds for random tables that a plan, done, leaves nothing to plan, also when any one step of it failed and
// the whole was tried again, and that a destination in use is never deleted.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := random(r), random(r)
		if steps := Plan(want, want); len(steps) != 0 {
			t.Fatalf("seed %d: plan of equals is\n%s", seed, rendered(t, steps))
		}
		steps := len(Plan(want, have))
		for fail := range steps + 1 {
			m := &model{table: clone(have), fail: fail}
			err := apply(context.Background(), m, Plan(want, m.table))
			if (err != nil) != (fail > 0 && m.done >= fail) {
				t.Fatalf("seed %d, failing step %d: error %v", seed, fail, err)
			}
			m.fail = 0
			if err := apply(context.Background(), m, Plan(want, m.table)); err != nil {
				t.Fatalf("seed %d, failing step %d: retry: %v", seed, fail, err)
			}
			if rest := Plan(want, m.table); len(rest) != 0 {
				t.Fatalf("seed %d, failing step %d: left\n%s", seed, fail, rendered(t, rest))
			}
		}
	}
}

func TestPlanNeverDeletesWhatIsInUse(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 2))
		want, have := random(r), random(r)
		for i := range have.Services {
			for j := range have.Services[i].Destinations {
				have.Services[i].Destinations[j].Active = 1
			}
		}
		for _, s := range Plan(want, have) {
			if s.Op == DelDestination || s.Op == DelService && hasDestinations(have, s.Service.Key) {
				t.Fatalf("seed %d: %s", seed, s)
			}
		}
	}
}

func hasDestinations(t Table, k Key) bool {
	return slices.ContainsFunc(t.Services, func(s Service) bool { return s.Key == k && len(s.Destinations) > 0 })
}

// TestApplySkipsWhatCannotBe holds that a service which cannot be made stops its own destinations only.
func TestApplySkipsWhatCannotBe(t *testing.T) {
	want := wanted(t, fleet())
	m := &model{fail: 1}
	err := apply(context.Background(), m, Plan(want, Table{}))
	if !errors.Is(err, errInjected) || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("error %v, want the injected one alone", err)
	}
	if diff := cmp.Diff(want.Services[1:], m.table.Services, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestApplyStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m := &model{}
	if err := apply(ctx, m, Plan(wanted(t, fleet()), Table{})); !errors.Is(err, context.Canceled) || m.done != 0 {
		t.Errorf("error %v after %d operations", err, m.done)
	}
}

func TestWantedRefuses(t *testing.T) {
	for name, v := range map[string]policy.VirtualService{
		"icmp":         {VIP: addr("203.0.113.1"), Protocol: "icmp"},
		"unknown flag": {VIP: addr("203.0.113.1"), Protocol: "tcp", Flags: []string{"mh-what"}},
		"other family": {VIP: addr("203.0.113.1"), Protocol: "tcp", Destinations: []policy.Destination{{Address: addr("2001:db8::1")}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Wanted([]policy.VirtualService{v}, [][]int{{1}}, nil); err == nil {
				t.Error("no error")
			}
		})
	}
}

// TestWantedMerges holds that a real server which is a service's sorry server too is there once.
func TestWantedMerges(t *testing.T) {
	v := policy.VirtualService{VIP: addr("203.0.113.1"), Protocol: "tcp", Port: 80, Scheduler: "rr", Destinations: []policy.Destination{
		{Guest: "a", Address: addr("10.0.0.1"), Port: 80, Weight: 5}, {Guest: "a", Address: addr("10.0.0.1"), Port: 80, Weight: 100, Sorry: true},
	}}
	for weights, want := range map[[2]int]int{{5, 0}: 5, {0, 100}: 100, {0, 0}: 0} {
		table, err := Wanted([]policy.VirtualService{v}, [][]int{weights[:]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := table.Services[0].Destinations
		if len(got) != 1 || got[0].Weight != want {
			t.Errorf("%v: %v", weights, fmt.Sprint(got))
		}
	}
}
