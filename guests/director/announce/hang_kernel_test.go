//go:build kernel

package announce

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// harm is what is done to a director's daemon, and what must be gone from the router then. Nothing hangs on bfdd but the router's
// quickness, and it may be back before the router misses it.
type harm struct {
	daemon string
	signal syscall.Signal
	vips   []string
}

// everything stands for all of a director's processes at once, its supervisor too: to its router it is a machine that is paused. It goes on as
// soon as the VIPs are gone.
const everything = "everything"

// TestKernelNoBlackHole kills and stops daemons of a director, and waits until the router has lost the VIPs that they speak for: a director
// that cannot withdraw them any more must not go on announcing them. Then all of them must come back. BLADENET_BLACKHOLES=all is for a quiet
// machine: each daemon by each signal, and BFD at its usual pace, which a busy emulated machine does not keep.
func TestKernelNoBlackHole(t *testing.T) {
	both := []string{vip6, vip4}
	slices.Sort(both)
	cases := map[string][]harm{
		"ospf-dead": {{zebra, syscall.SIGSTOP, both}, {"ospfd", syscall.SIGSTOP, both[1:]}},
		"bgp-hold":  {{zebra, syscall.SIGKILL, both}, {"bgpd", syscall.SIGSTOP, both}},
	}
	if os.Getenv("BLADENET_BLACKHOLES") == "all" {
		cases = map[string][]harm{}
		for spec, vips := range map[string]map[string][]string{
			"ospf":      {zebra: both, "ospfd": both[1:], "ospf6d": both[:1], "bfdd": nil},
			"ospf-dead": {zebra: both, "ospfd": both[1:], "ospf6d": both[:1]},
			"bgp":       {zebra: both, "bgpd": both, "bfdd": nil},
			"bgp-hold":  {zebra: both, "bgpd": both},
		} {
			cases[spec] = append(cases[spec], harm{everything, syscall.SIGSTOP, both})
			for daemon, gone := range vips {
				cases[spec] = append(cases[spec], harm{daemon, syscall.SIGKILL, gone}, harm{daemon, syscall.SIGSTOP, gone})
			}
		}
	}
	for spec, harms := range cases {
		t.Run(spec, func(t *testing.T) {
			protocol, _, slow := strings.Cut(spec, "-")
			r := newRig(t, protocol, !slow)
			d := r.startDirector(spec)
			r.addVIPs()
			whole := func() bool { return slices.Equal(r.routes(protocol), both) && d.full() }
			r.until(60*time.Second, "VIPs at the router", whole)
			for _, h := range harms {
				time.Sleep(2 * time.Second) // a router takes no younger version of a route within a second (RFC 2328, MinLSArrival)
				pid := r.pid(h.daemon)
				if h.daemon == everything {
					time.Sleep(5 * time.Second) // BFD's sessions are up some seconds after the routes
					r.signalAll(h.signal)
				} else if err := syscall.Kill(pid, h.signal); err != nil {
					t.Fatal(err)
				}
				gone := r.until(20*time.Second, "VIPs gone", func() bool {
					have := r.routes(protocol)
					return !slices.ContainsFunc(h.vips, func(v string) bool { return slices.Contains(have, v) })
				})
				if h.daemon == everything {
					r.signalAll(syscall.SIGCONT)
				}
				back := r.until(60*time.Second, "VIPs back", func() bool { return whole() && (h.daemon == everything || r.pid(h.daemon) != pid) })
				t.Logf("%s, %s of %s: %s gone after %.1f s, back %.1f s later", spec, h.signal, h.daemon, cmp.Or(strings.Join(h.vips, " and "), "nothing"), gone.Seconds(), back.Seconds())
			}
		})
	}
}

// signalAll signals every process of the director.
func (r *rig) signalAll(signal syscall.Signal) {
	r.t.Helper()
	for _, word := range strings.Fields(r.ip("netns", "pids", r.dir)) {
		pid, err := strconv.Atoi(word)
		if err == nil {
			err = syscall.Kill(pid, signal)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// pid is that of a director's daemon. 0: it is being started.
func (r *rig) pid(daemon string) int { return pidIn(filepath.Join(r.run, "director", daemon+".pid")) }

// full says whether the director has its router as a neighbour in both families.
func (d *director) full() bool {
	select {
	case d.last = <-d.status:
	default:
	}
	return d.last.Full4 == 1 && d.last.Full6 == 1
}
