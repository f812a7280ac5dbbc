//go:build kernel

package twoblades

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// place is one site of the fleet two-sites, and where the lab has put it.
type place struct {
	blade, director, server string
	router, users           string // network namespaces
	protocol                string // by which the director announces
	hops                    []string
}

var (
	here = place{"lame-l1", "dir-1", "www-1", "router", "client", "ospf", []string{"192.0.2.2", policy.LinkLocal(policy.MACOf("dir-1", "eth0")).String()}}
	away = place{"lame-t1", "dir-2", "www-2", "router-tertre", "client-tertre", "bgp", []string{"192.0.2.18", "2001:db8:112::2", policy.LinkLocal(policy.MACOf("dir-2", "eth0")).String()}}

	localVIPs    = webVIPs // of a service in locality mode
	survivorVIPs = udpVIPs // of one in survive mode, on port 80 here
)

// TestTwoSites is one lab's life: a site whose director announces by OSPFv2 and OSPFv3, and one whose director announces by BGP.
func TestTwoSites(t *testing.T) {
	for _, p := range []place{here, away} {
		eventually(t, 10*time.Minute, "users of "+p.blade+" are answered by their own site", func() error { return answered(p, localVIPs, p.server) })
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"only VIPs are announced", onlyVIPs},
		{"a site falls back and comes back", fallBack},
		{"a site that is cut off serves its users", cutOff},
		{"a drained director's sessions go on", drainedSessions},
	} {
		t.Run(part.name, part.run)
	}
}

// answered asks each VIP from a site's users and wants an answer each time, from these servers and each of them.
func answered(p place, vips []netip.Addr, by ...string) error {
	return traffic.In("/run/netns/"+p.users, func() error {
		for _, vip := range vips {
			seen := map[string]bool{}
			for range 20 {
				name, err := ask(vip)
				if err != nil {
					return fmt.Errorf("users of %s: %w", p.blade, err)
				}
				if !slices.Contains(by, name) {
					return fmt.Errorf("users of %s: %s is answered by %s", p.blade, vip, name)
				}
				seen[name] = true
			}
			if len(seen) != len(by) {
				return fmt.Errorf("users of %s: %s is answered by %v only", p.blade, vip, seen)
			}
		}
		return nil
	})
}

// viaDirector are the destinations that a site's router reaches by its director, sorted, and how it has learned of them.
func viaDirector(t *testing.T, p place) (destinations, protocols []string) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(run(t, "ip", "-n", p.router, family, "-o", "route", "show")) {
			f := strings.Fields(line)
			via, proto := slices.Index(f, "via"), slices.Index(f, "proto")
			if via < 0 || proto < 0 || !slices.Contains(p.hops, f[via+1]) {
				continue
			}
			destinations = append(destinations, f[0])
			if !slices.Contains(protocols, f[proto+1]) {
				protocols = append(protocols, f[proto+1])
			}
		}
	}
	slices.Sort(destinations)
	return destinations, protocols
}

// onlyVIPs: a site's router has the VIPs from its director and nothing else, though the director has networks of its own, and hears of
// others from the router.
func onlyVIPs(t *testing.T) {
	var want []string
	for _, vip := range slices.Concat(localVIPs, survivorVIPs) {
		want = append(want, vip.String())
	}
	slices.Sort(want)
	for _, p := range []place{here, away} {
		eventually(t, time.Minute, p.director+" announces its VIPs and nothing else", func() error {
			got, by := viaDirector(t, p)
			if !slices.Equal(got, want) || !slices.Equal(by, []string{p.protocol}) {
				return fmt.Errorf("%v by %v, want %v by %s", got, by, want, p.protocol)
			}
			return nil
		})
	}
}

// fallBack stops the only real server of a site. Its users are answered by the other site meanwhile.
func fallBack(t *testing.T) {
	on(t, here.blade, "bladectl", "stop", here.server, "--drain", "0")
	eventually(t, time.Minute, "the other site answers", func() error { return answered(here, localVIPs, away.server) })
	on(t, here.blade, "bladectl", "start", here.server)
	eventually(t, time.Minute, "the own site answers again", func() error { return answered(here, localVIPs, here.server) })
	if err := answered(away, localVIPs, away.server); err != nil {
		t.Error(err)
	}
}

// cutOff takes the ways between the sites: each goes on with what it has.
func cutOff(t *testing.T) {
	ways := []string{"trunks", "backbone"}
	join := func() {
		for _, way := range ways {
			run(t, "ip", "link", "set", way, "up")
		}
	}
	defer join() // not a cleanup: the test's context has ended then, and run needs it
	for _, way := range ways {
		run(t, "ip", "link", "set", way, "down")
	}
	for _, p := range []place{here, away} {
		if err := answered(p, localVIPs, p.server); err != nil {
			t.Errorf("at once: %v", err)
		}
		eventually(t, time.Minute, "the other site's servers are out of rotation", func() error { return answered(p, survivorVIPs, p.server) })
	}
	join()
	for _, p := range []place{here, away} {
		eventually(t, 2*time.Minute, "both sites answer again", func() error { return answered(p, survivorVIPs, here.server, away.server) })
		if err := answered(p, localVIPs, p.server); err != nil {
			t.Error(err)
		}
	}
}

// drainedSessions drains a site's director. Its users come by the other site's, and their open sessions do too.
func drainedSessions(t *testing.T) {
	list := openTo(t, survivorVIPs, 20)
	on(t, here.blade, "bladectl", "drain", here.director, "--wait", "0")
	eventually(t, time.Minute, "the router has no VIP from "+here.director, func() error {
		if got, _ := viaDirector(t, here); len(got) > 0 {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
	eventually(t, time.Minute, "users come by the other director", func() error {
		return answered(here, survivorVIPs, here.server, away.server)
	})
	errs := each(clientSpace, len(list), func(i int) error { return list[i].Ask(15 * time.Second) })
	if len(errs) > 0 {
		t.Errorf("%d of %d sessions did not go on, first: %v", len(errs), len(list), errs[0])
	}
	on(t, here.blade, "bladectl", "undrain", here.director)
	eventually(t, time.Minute, here.director+" announces again", func() error {
		if got, _ := viaDirector(t, here); len(got) != len(localVIPs)+len(survivorVIPs) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}
