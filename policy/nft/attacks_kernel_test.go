//go:build kernel

package nft

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
)

// TestAttacksComeToNothing lets every guest of a public and a private blade, and of one with a pair, directors too, and the VLANs, try every class of attack on the kernel: no frame
// comes out of any port, and each is counted under its reason for the port that it came from.
func TestAttacksComeToNothing(t *testing.T) {
	blades := []policy.Blade{withPair(t)}
	for _, name := range nantesBlades()[:2] {
		blades = append(blades, nantes(t, name))
	}
	for _, b := range blades {
		t.Run(string(b.Name), func(t *testing.T) {
			namespace(t)
			k := open(t)
			bring(t, k, unlimited(filter.Compile(b)))
			x := newBench(t, b)
			attacks := filtertest.LinkAttacks(b)
			for _, g := range b.Guests {
				attacks = append(attacks, filtertest.Attacks(b, g.Name)...)
			}
			for _, a := range attacks {
				x.attack(k, a)
			}
		})
	}
}

// withPair is a blade of a drawn fleet on which a director announces by VRRP.
func withPair(t *testing.T) policy.Blade {
	t.Helper()
	for seed := range uint64(20) {
		blades, err := filtertest.Blades(seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blades {
			if slices.ContainsFunc(b.Peers, func(p policy.Peer) bool { return p.VRRP != nil && p.Blade == b.Name }) {
				return b
			}
		}
	}
	t.Fatal("no drawn fleet has a pair")
	return policy.Blade{}
}

func (x *bench) attack(k *Kernel, a filtertest.Attack) {
	x.t.Helper()
	const mark = 0xb1b1
	x.received(0)
	before := x.counted(k, a)
	frame := a.Frame(mark)
	to := &unix.SockaddrLinklayer{Ifindex: x.far[a.Packet.In], Protocol: ethAll()}
	if err := unix.Sendto(x.fd, frame, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
		x.t.Fatal(err)
	}
	if got := x.leaked(frame, 5*time.Millisecond); len(got) > 0 {
		x.t.Errorf("%s, %s comes out of %v", a.Packet.In, a.Class, got)
	}
	if counted := x.counted(k, a) - before; (counted > 0) != (a.Reason != "") {
		x.t.Errorf("%s, %s: counted %d times under %q", a.Packet.In, a.Class, counted, a.Reason)
	}
}

// counted reads how often the attack's reason has dropped a frame of its port. It reads one set, where Counters reads them all.
func (x *bench) counted(k *Kernel, a filtertest.Attack) uint64 {
	x.t.Helper()
	if a.Reason == "" {
		return 0
	}
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: filter.BridgeTable}
	elements, err := k.read.GetSetElements(&nftables.Set{Table: table, Name: "hit-" + string(a.Reason), KeyType: nftables.TypeIFName})
	x.must(err)
	for port, c := range observedHits(elements) {
		if strings.TrimRight(port, "\x00") == a.Packet.In {
			return c.packets
		}
	}
	return 0
}

// leaked lists the ports out of which a frame has come, whole or without its tag.
func (x *bench) leaked(frame []byte, quiet time.Duration) []string {
	x.t.Helper()
	var ports []string
	x.hear(quiet, func(port string, heard []byte) {
		if n := len(heard); n >= 40 && slices.Equal(heard[n-40:], frame[len(frame)-40:]) {
			ports = append(ports, port)
		}
	})
	return ports
}
