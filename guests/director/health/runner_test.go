package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bladenet/bladenet/policy"
)

func check(id string) policy.Check {
	return policy.Check{ID: id, Kind: "tcp", Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
}

// servers is a probe whose servers are switched by a test.
type servers struct {
	mu     sync.Mutex
	down   map[string]bool
	hang   map[string]bool
	probes map[string][]time.Time
	answer Answer
}

func newServers() *servers {
	return &servers{down: map[string]bool{}, hang: map[string]bool{}, probes: map[string][]time.Time{}}
}

func (s *servers) probe(ctx context.Context, c policy.Check) (Answer, error) {
	s.mu.Lock()
	s.probes[c.ID] = append(s.probes[c.ID], time.Now())
	down, hang, answer := s.down[c.ID], s.hang[c.ID], s.answer
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return Answer{}, ctx.Err()
	}
	if down {
		return Answer{}, errors.New("connection refused")
	}
	return answer, nil
}

func (s *servers) set(m map[string]bool, id string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m[id] = is
}

func (s *servers) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.probes[id])
}

// start runs the checks in the bubble of synctest; stop waits for all of it.
func start(t *testing.T, s *servers, checks ...policy.Check) (sets chan<- []policy.Check, results <-chan Result) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	in, out := make(chan []policy.Check), make(chan Result, 1000)
	done := make(chan struct{})
	go func() { Run(ctx, in, out, s.probe); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	in <- checks
	return in, out
}

func drain(results <-chan Result) (out []string) {
	synctest.Wait()
	for {
		select {
		case r := <-results:
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.ID, r.State, r.Reason)))
		default:
			return out
		}
	}
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("results %q, want %q", got, want)
	}
}

func TestFirstProbeDecidesThenRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServers()
		s.set(s.down, "b", true)
		_, results := start(t, s, check("a"))
		time.Sleep(FirstWithin)
		want(t, drain(results), "a up")
		s.set(s.down, "a", true)
		time.Sleep(4 * time.Second) // two failures
		want(t, drain(results))
		s.set(s.down, "a", false)
		time.Sleep(2 * time.Second) // one success: the failures in a row begin anew
		s.set(s.down, "a", true)
		time.Sleep(4 * time.Second)
		want(t, drain(results))
		time.Sleep(2 * time.Second)
		want(t, drain(results), "a down connection refused")
		s.set(s.down, "a", false)
		time.Sleep(2 * time.Second)
		want(t, drain(results))
		time.Sleep(2 * time.Second)
		want(t, drain(results), "a up")
	})
}

// TestAFirstVerdictOfDownTakesAllProbes: as many in a row as later, but sooner one after the other, and a success among them is up at once.
func TestAFirstVerdictOfDownTakesAllProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServers()
		s.set(s.down, "a", true)
		s.set(s.down, "b", true)
		_, results := start(t, s, check("a"), check("b"))
		time.Sleep(FirstWithin)
		s.set(s.down, "b", false)
		want(t, drain(results))
		time.Sleep(time.Second)
		got := drain(results)
		slices.Sort(got)
		want(t, got, "a down connection refused", "b up")
		before := s.count("a")
		time.Sleep(4 * time.Second)
		if n := s.count("a") - before; n != 2 {
			t.Errorf("%d probes in two intervals", n)
		}
	})
}

func TestTimeoutIsAFailureAndNamesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServers()
		s.set(s.hang, "a", true)
		_, results := start(t, s, check("a"), check("b"))
		time.Sleep(FirstWithin + 3*time.Second)
		got := drain(results)
		if len(got) != 2 || got[0] != "b up" || got[1] != "a down no answer within 1s" {
			t.Errorf("results %q", got)
		}
	})
}

// TestIntervalsHold holds that probes begin one interval apart whatever they take, once there is a verdict, and that many checks are spread out.
func TestIntervalsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServers()
		var checks []policy.Check
		for i := range 200 {
			id := fmt.Sprint(i)
			checks = append(checks, check(id))
			s.set(s.hang, id, i%2 == 0)
		}
		_, results := start(t, s, checks...)
		time.Sleep(21 * time.Second)
		drain(results)
		starts := map[time.Time]int{}
		for id, times := range s.probes {
			if len(times) < 10 {
				t.Errorf("%s: %d probes in 21 s", id, len(times))
			}
			starts[times[0]]++
			for i := check(id).Fall; i < len(times); i++ {
				if gap := times[i].Sub(times[i-1]); gap != 2*time.Second {
					t.Fatalf("%s: %s between two probes", id, gap)
				}
			}
		}
		if len(starts) < 190 {
			t.Errorf("200 checks began at %d moments", len(starts))
		}
	})
}

// TestNewListLeavesTheRestAlone holds that a new policy restarts only what it changes.
func TestNewListLeavesTheRestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServers()
		sets, results := start(t, s, check("stays"), check("goes"), check("changes"))
		time.Sleep(FirstWithin)
		if got := drain(results); len(got) != 3 {
			t.Fatalf("results %q", got)
		}
		began := s.probes["stays"][0]
		other := check("changes")
		other.Interval = 4 * time.Second
		sets <- []policy.Check{check("stays"), other, check("new")}
		synctest.Wait()
		gone := s.count("goes")
		time.Sleep(20 * time.Second)
		got := drain(results)
		if len(got) != 2 || !strings.Contains(strings.Join(got, ";"), "changes up") || !strings.Contains(strings.Join(got, ";"), "new up") {
			t.Errorf("results %q, want the changed and the new one", got)
		}
		if s.count("goes") != gone {
			t.Error("a check that is gone was probed")
		}
		for _, at := range s.probes["stays"] {
			if at.Sub(began)%(2*time.Second) != 0 {
				t.Errorf("a check that stayed was probed %s after it began", at.Sub(began))
			}
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newServers()
		s.set(s.hang, "a", true)
		in, out := make(chan []policy.Check), make(chan Result) // nobody reads the results
		done := make(chan struct{})
		go func() { Run(ctx, in, out, s.probe); close(done) }()
		in <- []policy.Check{check("a"), check("b")}
		time.Sleep(time.Minute)
		cancel()
		<-done
	})
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		rise, fall int
		probes     string // + well, - not
		want       string // u up, d down, . no change
	}{
		{1, 1, "+-+-", "udud"},
		{2, 3, "+--+---++", "u.....d.u"},
		{2, 3, "---++", "..d.u"},
		{2, 3, "--+", "..u"},
		{0, 0, "-+-", "dud"},
		{3, 1, "-+++-", "d..ud"},
		{2, 2, "+-+-+-", "u....."},
	} {
		v := Verdict{Rise: c.rise, Fall: c.fall}
		got := ""
		for _, p := range c.probes {
			switch changed := v.Add(p == '+'); {
			case !changed:
				got += "."
			case v.State == Up:
				got += "u"
			default:
				got += "d"
			}
		}
		if got != c.want {
			t.Errorf("rise %d fall %d %s: %s, want %s", c.rise, c.fall, c.probes, got, c.want)
		}
	}
}

// TestAnswersAndComebacks holds that another answer of a server that stays up is a result, and that coming back is told from a first verdict.
func TestAnswersAndComebacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServers()
		_, results := start(t, s, check("a"))
		next := func(after time.Duration) Result {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			select {
			case r := <-results:
				return r
			default:
				t.Fatal("no result")
				return Result{}
			}
		}
		first := next(FirstWithin)
		if first.State != Up || first.Back || first.Weighs {
			t.Errorf("first %+v", first)
		}
		s.mu.Lock()
		s.answer = Answer{Weighs: true, Weight: 7}
		s.mu.Unlock()
		if r := next(2 * time.Second); r.State != Up || r.Weight != 7 || r.Since != first.Since || r.Back {
			t.Errorf("another answer %+v", r)
		}
		s.set(s.down, "a", true)
		if r := next(6 * time.Second); r.State != Down || r.Weighs {
			t.Errorf("down %+v", r)
		}
		s.set(s.down, "a", false)
		if r := next(4 * time.Second); r.State != Up || !r.Back || r.Weight != 7 {
			t.Errorf("back %+v", r)
		}
		time.Sleep(time.Minute)
		want(t, drain(results))
	})
}
