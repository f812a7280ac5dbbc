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

// moved is portSpec after a day's work: a guest gone, one new, a port on another bridge, another driver.
func moved() Spec {
	s := portSpec()
	s.Bridges = append(s.Bridges, Bridge{Name: "br140", Network: "new", MAC: bridgeMAC("b1", "br140")})
	s.Namespaces = []policy.GuestName{"dir-1", "www-2"}
	s.Ports = []Port{
		testPort("dir-1.0", KindVeth, "dir-1", "eth0", "br130", 1),
		testPort("dir-1.1", KindVeth, "dir-1", "eth1", "br140", 2),
		testPort("tap-9.0", KindTap, "tap-9", "eth0", "br120", 7),
		testPort("www-2.0", KindVeth, "www-2", "eth0", "br140", 8),
	}
	return s
}

// TestFaultAfterEachChange stops after each single change of the kernel, not only after each step, and demands that a retry converges.
func TestFaultAfterEachChange(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to Spec
	}{
		{"from nothing", Spec{Trunk: "trunk0"}, portSpec()},
		{"to another", portSpec(), moved()},
		{"and back", moved(), portSpec()},
		{"to nothing", portSpec(), Spec{Trunk: "trunk0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; ; n++ {
				k := newKernel(t)
				addForeign(t, k, "trunk0", "veth")
				mustConverge(t, k, c.from)
				complete := failAfter(k, n)
				if err := converge(context.Background(), k, c.to); err != nil && !errors.Is(err, errInjected) {
					t.Fatalf("after %d changes: %v", n, err)
				}
				k.hook = nil
				mustConverge(t, k, c.to)
				checkSettled(t, c.to, observe(t, k))
				if t.Failed() {
					t.Fatalf("after %d changes", n)
				}
				if complete() {
					t.Logf("%d changes", n)
					return
				}
			}
		})
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
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 4))
		k := newKernel(t)
		addForeign(t, k, "trunk0", "veth")
		addForeign(t, k, "br120", "bridge")
		addForeign(t, k, "g2.0", "ifb")
		addForeign(t, k, "eno9", "bridge")
		raw(t, k, unix.RTM_NEWLINK, 0, &nlUp{name: "eno9"})
		before := foreignLinks(observe(t, k))
		for range 8 {
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
