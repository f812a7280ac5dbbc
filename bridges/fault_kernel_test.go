//go:build kernel

package bridges

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

var errInjected = errors.New("injected")

// failAfter makes every change of the kernel fail after n of them, as if the agent had died there.
func failAfter(k *Kernel, n int) (ran func() bool) {
	failed := false
	k.hook = func(string) error {
		if n == 0 {
			failed = true
			return errInjected
		}
		n--
		return nil
	}
	return func() bool { return !failed }
}

// small is a tap and a veth on two bridges: every kind of change with few of each, because a kernel takes its time for each.
func small() Spec {
	return Spec{
		Trunk:      "trunk0",
		Bridges:    []Bridge{{Name: "br120", Network: "a", MAC: bridgeMAC("b1", "br120")}, {Name: "br130", Network: "b", MAC: bridgeMAC("b1", "br130")}},
		Namespaces: []policy.GuestName{"www-1"},
		Ports:      []Port{testPort("dir-1.0", KindTap, "dir-1", "eth0", "br130", 1), testPort("www-1.0", KindVeth, "www-1", "eth0", "br120", 3)},
	}
}

// moved is small after a day's work: a bridge gone and one new, a port on another bridge, a port of another driver, a guest gone.
func moved() Spec {
	return Spec{
		Trunk:      "trunk0",
		Bridges:    []Bridge{{Name: "br130", Network: "b", MAC: bridgeMAC("b1", "br130")}, {Name: "br140", Network: "c", MAC: bridgeMAC("b1", "br140")}},
		Namespaces: []policy.GuestName{"dir-1", "www-1"},
		Ports:      []Port{testPort("dir-1.0", KindVeth, "dir-1", "eth0", "br130", 1), testPort("www-1.0", KindVeth, "www-1", "eth0", "br140", 3)},
	}
}

// TestFaultAfterEachChange goes to and fro between two specs, stops after each single change of the kernel, not only after each step, and
// demands that a retry converges.
func TestFaultAfterEachChange(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to Spec
	}{
		{"from nothing", Spec{Trunk: "trunk0"}, small()},
		{"to another", small(), moved()},
	} {
		t.Run(c.name, func(t *testing.T) { faultAfterEachChange(t, c.from, c.to) })
	}
}

func faultAfterEachChange(t *testing.T, from, to Spec) {
	t.Helper()
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	mustConverge(t, k, from)
	for n := 0; ; n++ {
		complete := true
		for _, want := range []Spec{to, from} {
			whole := failAfter(k, n)
			if err := converge(context.Background(), k, want); err != nil && !errors.Is(err, errInjected) {
				t.Fatalf("after %d changes: %v", n, err)
			}
			k.hook = nil
			if !whole() {
				mustConverge(t, k, want)
				complete = false
			}
			have := observe(t, k)
			wantNothing(t, Plan(want, have))
			checkSettled(t, want, have)
			if t.Failed() {
				t.Fatalf("after %d changes", n)
			}
		}
		if complete {
			t.Logf("%d changes at most", n)
			return
		}
	}
}

// TestCancelledContext cancels after each change and demands that nothing else is done, and that a retry converges.
func TestCancelledContext(t *testing.T) {
	for n := range 8 {
		k := newKernel(t)
		addForeign(t, k, "trunk0", "veth")
		ctx, cancel := context.WithCancel(context.Background())
		left := n
		k.hook = func(string) error {
			if left == 0 {
				cancel()
			}
			left--
			return nil
		}
		if err := converge(ctx, k, portSpec()); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, not a cancellation", err)
		}
		cancel()
		if left < -1 {
			t.Errorf("%d more changes after the context was cancelled", -1-left)
		}
		k.hook = nil
		mustConverge(t, k, portSpec())
	}
}

// foreignLinks returns the links of a kernel that are not ours, without what traffic and ports change of themselves.
func foreignLinks(s State) []Link {
	var out []Link
	for _, l := range s.sorted() {
		if !l.ours() && l.Name != "trunk0" {
			out = append(out, l)
		}
	}
	return out
}

// TestWalkKernel goes through random specs on the kernel, with foreign links in the way and a fault at a random change.
func TestWalkKernel(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 4))
		k := newKernel(t)
		addForeign(t, k, "trunk0", "veth")
		addForeign(t, k, "br120", "bridge")
		addForeign(t, k, "g2.0", "ifb")
		addForeign(t, k, "eno9", "bridge")
		raw(t, k, unix.RTM_NEWLINK, 0, &nlUp{name: "eno9"})
		before := foreignLinks(observe(t, k))
		for range 6 {
			want := randomSpec(r, false)
			failAfter(k, r.IntN(60))
			if err := converge(context.Background(), k, want); err != nil && !errors.Is(err, errInjected) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			k.hook = nil
			mustConverge(t, k, want)
			have := observe(t, k)
			checkSettled(t, want, have)
			if diff := cmp.Diff(before, foreignLinks(have), cmp.AllowUnexported(Link{})); diff != "" {
				t.Errorf("foreign links were touched (-before +after):\n%s", diff)
			}
			var guests []policy.GuestName
			for guest := range have.Namespaces {
				guests = append(guests, guest)
			}
			slices.Sort(guests)
			if diff := cmp.Diff(fmt.Sprint(want.Namespaces), fmt.Sprint(guests)); diff != "" {
				t.Errorf("namespaces (-want +got):\n%s", diff)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}
