//go:build kernel

package twoblades

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// How many connections are open when a director fails: to a service in survive mode, and to one whose connections the directors tell each other
// of.
const (
	sessions = 200
	told     = 50
)

// syncWithin is how long a director may keep to itself what it has to tell of its connections: the kernel's two seconds, and its look once a
// second.
const syncWithin = 4 * time.Second

// openTo makes sessions to VIPs and asks on each once.
func openTo(t *testing.T, vips []netip.Addr, n int) []*traffic.Session {
	t.Helper()
	out := make([]*traffic.Session, n)
	errs := each(clientSpace, n, func(i int) (err error) {
		out[i], err = traffic.Dial(netip.AddrPortFrom(vips[i%len(vips)], webPort).String(), 15*time.Second)
		return err
	})
	t.Cleanup(func() {
		for _, s := range out {
			if s != nil {
				_ = s.Close()
			}
		}
	})
	if len(errs) > 0 {
		t.Fatalf("%d of %d sessions cannot be opened, first: %v", len(errs), n, errs[0])
	}
	return out
}

// TestADirectorDies gives the fleet a second director, and kills the machine of the one that users' packets go by, as a power cut does. Every
// session goes on at the real server that it was at: the other director has the same table, or has heard of the connection. Each family may go by a director of its own. It
// is tried three times: when routers miss the director by OSPF's dead interval, and when BFD (BLADENET_BFD, 300ms, times 3) watches it for OSPF and for BGP.
func TestADirectorDies(t *testing.T) {
	eventually(t, 10*time.Minute, "both real servers answer over both VIPs", bothAnswer)
	secondDirector(t)
	pace, err := time.ParseDuration(cmp.Or(os.Getenv("BLADENET_BFD"), "300ms"))
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		name    string
		prepare func(*testing.T)
	}{
		{"OSPF, dead interval 4 s", func(*testing.T) {}},
		{fmt.Sprintf("OSPF, BFD %s x 3", pace), func(t *testing.T) { watchOSPF(t, pace) }},
		{fmt.Sprintf("BGP, BFD %s x 3", pace), func(t *testing.T) { watchBGP(t, pace) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			way.prepare(t)
			for _, vip := range webVIPs {
				fails(t, vip, "killed", kill, nil)
			}
		})
	}
	t.Run("paused", func(t *testing.T) { fails(t, webVIPs[0], "paused", suspend, resume) })
}

// fails ends the director that users' packets to a VIP go by, under their sessions, and waits for it to come back, by itself or by back.
func fails(t *testing.T, vip netip.Addr, how string, end, back func(*testing.T, string)) {
	for _, other := range webVIPs {
		eventually(t, 3*time.Minute, "two directors announce "+other.String(), func() error { return twoWays(t, other) })
	}
	list := slices.Concat(openTo(t, webVIPs, sessions), openTo(t, rrVIPs, told))
	time.Sleep(syncWithin)
	for _, other := range webVIPs { // opening so many at once may have starved a director for longer than its router is patient
		eventually(t, time.Minute, "two directors announce "+other.String()+" still", func() error { return twoWays(t, other) })
	}
	director, err := onTheWay(vip)
	if err != nil || director == "" {
		t.Fatalf("the router sends %s by no director: %v", vip, err)
	}
	end(t, director)
	goOn(t, list, director, how, vip)
	if now, err := onTheWay(vip); err != nil || now == director {
		t.Errorf("%s is back already: nothing shows that the other one took over: %v", director, err)
	}
	if back != nil {
		back(t, director)
	}
	for _, other := range webVIPs {
		eventually(t, 3*time.Minute, director+" is back", func() error { return twoWays(t, other) })
	}
}

// watchOSPF lets the router and both directors watch each other by BFD.
func watchOSPF(t *testing.T, pace time.Duration) {
	t.Helper()
	router(t, slices.Concat(bfdProfile(pace), []string{"interface vlan111", "ip ospf bfd", "ip ospf bfd profile test", "ipv6 ospf6 bfd profile test"})...)
	announce(t, fmt.Sprintf("{ospf: {area: 0.0.0.0, hello: 1s, dead: 4s, bfd: {interval: %s, multiplier: 3}}}", pace))
	allWatched(t)
}

// watchBGP lets both directors announce by BGP in the place of OSPF. The router answers any director of their uplink.
func watchBGP(t *testing.T, pace time.Duration) {
	t.Helper()
	router(t, slices.Concat(bfdProfile(pace), []string{"router bgp 64500", "neighbor vlan111 bfd profile test"})...)
	announce(t, fmt.Sprintf("{bgp: {as: 64512, peer-as: 64500, bfd: {interval: %s, multiplier: 3}}}", pace))
	eventually(t, 3*time.Minute, "the router has sessions with both directors in both families", func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			out := run(t, "vtysh", "-N", "router", "-c", "show bgp "+family+" unicast summary established json")
			if n := strings.Count(out, `"state":"Established"`); n != 2 {
				return fmt.Errorf("%d of 2 sessions: %s", n, out)
			}
		}
		return nil
	})
	allWatched(t)
}

// bfdProfile are the router's commands for a profile named test.
func bfdProfile(pace time.Duration) []string {
	ms := pace.Milliseconds()
	return []string{"bfd", "profile test", "detect-multiplier 3", fmt.Sprintf("receive-interval %d", ms), fmt.Sprintf("transmit-interval %d", ms), "exit", "exit"}
}

// router gives the router commands of its configuration.
func router(t *testing.T, commands ...string) {
	t.Helper()
	args := []string{"vtysh", "-N", "router", "-c", "configure terminal"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	run(t, args...)
}

// announce lets both directors announce in another way. It is the last thing in their entries.
func announce(t *testing.T, how string) {
	t.Helper()
	for _, blade := range blades {
		on(t, blade, "sed", "-i", "s/announce: .*/announce: "+how+"}/", "/etc/bladenet/fleet.yaml", "/etc/bladenet/guest-dir-2.yaml")
		on(t, blade, "bladectl", "apply")
	}
}

// allWatched waits until BFD watches both directors in both families.
func allWatched(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, "BFD watches both directors in both families", func() error {
		peers := run(t, "vtysh", "-N", "router", "-c", "show bfd peers json")
		if n := strings.Count(peers, `"status":"up"`); n != 4 {
			return fmt.Errorf("%d of 4 sessions are up: %s", n, peers)
		}
		return nil
	})
}

// secondDirector spawns one on the second blade, and tells the first one of it as operators do: by the same file.
func secondDirector(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const file = "/etc/bladenet/guest-dir-2.yaml"
	enter := []string{"--net=/run/netns/" + blades[1], "--mount=/run/lab/ns/" + blades[1] + ".mnt", "--"}
	spawn := exec.CommandContext(ctx, "nsenter", append(enter, "bladectl", "spawn", "director", "dir-2", "--site", "lombarderie")...)
	if out, err := spawn.CombinedOutput(); err != nil {
		t.Fatalf("spawn dir-2: %v\n%s", err, out)
	}
	entry := on(t, blades[1], "cat", file)
	on(t, blades[0], "sh", "-c", "cat >"+file+" <<'END'\n"+entry+"END\n")
	on(t, blades[0], "bladectl", "apply")
	for _, vip := range webVIPs {
		eventually(t, 3*time.Minute, "both directors announce "+vip.String(), func() error { return twoWays(t, vip) })
	}
}

// twoWays returns an error unless the router knows two ways to a VIP.
func twoWays(t *testing.T, vip netip.Addr) error {
	t.Helper()
	family := "-4"
	if vip.Is6() {
		family = "-6"
	}
	out := run(t, "ip", "-n", "router", family, "route", "show", vip.String())
	if n := strings.Count(out, "via "); n != 2 {
		return fmt.Errorf("%d ways:\n%s", n, out)
	}
	return nil
}

// goOn wants an answer on each session, from the real server that answered before, and says how long users had to wait. Of the sessions that
// another director must have been told of one in ten may be lost, because the kernel tells by datagrams; without a word half of them would be.
func goOn(t *testing.T, list []*traffic.Session, director, how string, vip netip.Addr) {
	t.Helper()
	died := time.Now()
	rerouted := make(chan time.Duration, 1)
	go func() {
		defer close(rerouted)
		for time.Since(died) < time.Minute {
			if now, err := onTheWay(vip); err == nil && now != "" && now != director {
				rerouted <- time.Since(died)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	var mu sync.Mutex
	var longest, last time.Duration
	untold := 0
	errs := each(clientSpace, len(list), func(i int) error {
		asked := time.Now()
		err := list[i].Ask(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		longest, last = max(longest, time.Since(asked)), max(last, time.Since(died))
		if err != nil && i >= sessions {
			untold++
			err = nil
		}
		return err
	})
	if untold > told/10 {
		t.Errorf("%s was %s: %d of %d sessions of which the other one should have heard did not go on", director, how, untold, told)
	}
	if len(errs) > 0 {
		t.Errorf("%s was %s: %d of %d sessions did not go on, first: %v", director, how, len(errs), sessions, errs[0])
		for _, blade := range blades {
			t.Logf("%s saw:\n%s", blade, on(t, blade, "bladectl", "events", "-n", "30", "--kind", "rotation,guest"))
		}
	}
	t.Logf("%s was %s under %d sessions and %d more, of which %d were lost: %s went another way after %s, the slowest request took %s, the last session was answered after %s",
		director, how, sessions, told, untold, vip, (<-rerouted).Round(10*time.Millisecond), longest.Round(10*time.Millisecond), last.Round(10*time.Millisecond))
}

// onTheWay is the director by which the router sends a user's packets. None: it has no way.
func onTheWay(vip netip.Addr) (director string, err error) {
	out, err := exec.Command("ip", "-n", "router", "route", "get", vip.String(), "from", userOf(vip), "iif", "users").CombinedOutput()
	if err != nil && !strings.Contains(string(out), "unreachable") {
		return "", fmt.Errorf("ask the router for %s: %w: %s", vip, err, out)
	}
	for i, address := range []string{"192.0.2.2", "192.0.2.3"} {
		name := fmt.Sprintf("dir-%d", i+1)
		if vip.Is6() { // routes of both protocols go by link-local addresses
			address = policy.LinkLocal(policy.MACOf(policy.GuestName(name), "eth0")).String()
		}
		if strings.Contains(string(out), "via "+address+" ") {
			return name, nil
		}
	}
	return "", nil
}

// suspend pauses a director's machine as an operator may, and resume lets it go on.
func suspend(t *testing.T, director string) { virsh(t, "suspend", director) }
func resume(t *testing.T, director string)  { virsh(t, "resume", director) }

func virsh(t *testing.T, verb, director string) {
	t.Helper()
	on(t, map[string]string{"dir-1": blades[0], "dir-2": blades[1]}[director], "virsh", verb, director)
}

// kill ends a director's machine at once.
func kill(t *testing.T, director string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "qemu") || !strings.Contains(string(text), "guest="+director+",") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal(fmt.Errorf("kill %s: %w", director, err))
		}
		return
	}
	t.Fatalf("no machine of %s", director)
}
