//go:build kernel

package bridges

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// TestRenderIsTrue lets ip(8) make what Render says and demands that only our marks are missing then.
func TestRenderIsTrue(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	raw(t, k, unix.RTM_NEWLINK, 0, &nlUp{name: "trunk0"})
	want := portSpec()
	want.Ports, want.Namespaces = want.Ports[:2], nil
	var lines bytes.Buffer
	if err := Render(&lines, want); err != nil {
		t.Fatal(err)
	}
	err := k.inThread(func() error {
		cmd := exec.Command("sh", "-e") // forked from this thread, so in its namespace
		cmd.Stdin = &lines
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range observe(t, k).Links {
		if want.has(l.Name) {
			raw(t, k, unix.RTM_SETLINK, 0, header(l.Index), attribute32(unix.IFLA_GROUP, newborn))
		}
	}
	have := observe(t, k)
	have.Netfilter = nil // the machine's business
	steps := Plan(want, have).All()
	if len(steps) != 4 {
		t.Errorf("%d steps, want one for each link", len(steps))
	}
	for _, s := range steps {
		if len(s.Detail) != 1 || !strings.HasPrefix(s.Detail[0], "alias ") {
			t.Errorf("ip made something else: %s", s.Step)
		}
	}
}

// BenchmarkObserve measures one look at a blade with 64 containers, which each pass of the agent takes.
func BenchmarkObserve(b *testing.B) {
	k := newKernel(b)
	addForeign(b, k, "trunk0", "veth")
	want := Spec{Trunk: "trunk0", Bridges: portSpec().Bridges}
	for i := range byte(64) {
		guest := policy.GuestName(fmt.Sprintf("g%02d", i))
		want.Namespaces = append(want.Namespaces, guest)
		want.Ports = append(want.Ports, testPort(string(guest)+".0", KindVeth, guest, "eth0", "br120", 2*i), testPort(string(guest)+".1", KindVeth, guest, "eth1", "br130", 2*i+1))
	}
	mustConverge(b, k, want)
	for b.Loop() {
		have, err := k.Observe(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		wantNothing(b, Plan(want, have))
	}
}
