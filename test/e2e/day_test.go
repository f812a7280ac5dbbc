//go:build kernel

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// TestOperatorsDay is one blade from nothing to answered requests and through the mishaps of a day. The parts build on each other, so the
// first that fails ends it.
func TestOperatorsDay(t *testing.T) {
	look := strangers(t)
	before := look()
	b := begin(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *blade)
	}{
		{"the empty blade converges", theEmptyBladeConverges},
		{"spawn refuses what cannot be", spawnRefusesWhatCannotBe},
		{"spawned nodes answer over both VIPs", spawnedNodesAnswer},
		{"the VIPs are not tracked", theVIPsAreNotTracked},
		{"a port that is no service is dropped", aPortThatIsNoServiceIsDropped},
		{"a guest attacks in vain", aGuestAttacksInVain},
		{"explain --live follows packets", explainLiveFollows},
		{"apply twice changes nothing", applyTwiceChangesNothing},
		{"SIGKILL of bladed loses no request", killLosesNoRequest},
		{"a broken policy leaves the blade as it was", brokenPolicyLeavesTheBlade},
		{"spawn and destroy lose no request", spawnAndDestroyLoseNoRequest},
		{"a drained node finishes what it has", drainedNodeFinishesWhatItHas},
		{"a spare node fills in", spareNodeFillsIn},
		{"a node without its VIP leaves", nodeWithoutVIPLeaves},
		{"a router that filters probes takes nobody out", filteredProbesTakeNobodyOut},
		{"a stopped node stays stopped until it is started", stoppedNodeStaysStopped},
		{"a drained director announces nothing", drainedDirectorAnnouncesNothing},
		{"a stranger's deletions are repaired", strangersDeletionsAreRepaired},
		{"a flushed ruleset is back", flushIsRepaired},
		{"an operator looks into guests", operatorLooksIntoGuests},
		{"top shows what nodes do", topCounts},
		{"a hung director is started again", hungDirectorIsStartedAgain},
		{"libvirtd down holds back only KVM guests", libvirtdDownHoldsBackOnlyKVM},
		{"an absent trunk is one sentence", absentTrunkIsOneSentence},
		{"destroy leaves nothing", destroyLeavesNothing},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, b) }) {
			t.FailNow()
		}
	}
	if diff := cmp.Diff(before, look()); diff != "" {
		t.Errorf("what is not ours changed (-before +after):\n%s", diff)
	}
}

func theEmptyBladeConverges(t *testing.T, _ *blade) {
	converged(t)
	s := status(t)
	if len(s.Links) != 3 || len(s.Guests) != 0 || s.Revision != 1 {
		t.Errorf("status = %+v, want three links, no guest, revision 1", s)
	}
	for _, name := range []string{"br111", "br120", "br130"} {
		if out := run(t, "ip", "-6", "addr", "show", "dev", name); strings.Contains(out, "inet6") {
			t.Errorf("%s has an IPv6 address:\n%s", name, out)
		}
	}
}

func spawnRefusesWhatCannotBe(t *testing.T, _ *blade) {
	for _, c := range []struct{ args, want string }{
		{"realserver www-9 --service www --image nosuch", "bladectl image build"},
		{"realserver www-9 --service wwww", "www"},
		{"realserver WWW --service www", "lower-case"},
		{"realserver www-9 --service www --blade lame-t1", "lame-t1"},
	} {
		out, code := try(t, append([]string{"spawn"}, strings.Fields(c.args)...)...)
		if code == 0 || !strings.Contains(out, c.want) {
			t.Errorf("spawn %s: status %d, want an error that says %q:\n%s", c.args, code, c.want, out)
		}
	}
	if found := traces(t, "www-9", folder, "/run/bladenet", "/var/lib/bladenet"); len(found) > 0 {
		t.Errorf("a refused spawn left %v", found)
	}
}

func spawnedNodesAnswer(t *testing.T, _ *blade) {
	ctl(t, "spawn", "director", director, "--site", "lombarderie")
	if out := ctl(t, "spawn", "realserver", "www", "--count", "2", "--service", "www", "--image", "web"); strings.Count(out, "in rotation") != 2 {
		t.Errorf("spawn does not say that both nodes are in rotation:\n%s", out)
	}
	reachable(t)
	for _, vip := range []string{vip4, vip6} {
		got := ask(t, vip, 40)
		if got["www-1"] == 0 || got["www-2"] == 0 || got["www-1"]+got["www-2"] != 40 {
			t.Errorf("%s: answered by %v, want 40 over www-1 and www-2", vip, got)
		}
	}
}

func theVIPsAreNotTracked(t *testing.T, _ *blade) {
	for _, family := range []string{"ipv4", "ipv6"} {
		out := run(t, "conntrack", "-L", "-f", family)
		if strings.Contains(out, "="+vip4+" ") || strings.Contains(out, "="+vip6+" ") {
			t.Errorf("a VIP is tracked:\n%s", out)
		}
	}
	if n := status(t).Filter.VIPConntrack; n != 0 {
		t.Errorf("status counts %d entries of VIPs, want 0", n)
	}
}

func aPortThatIsNoServiceIsDropped(t *testing.T, _ *blade) {
	for _, vip := range []string{vip4, vip6} {
		code := exitStatus(t, client(t.Context(), "curl", "-g", "-s", "-m", "2", "http://"+bracket(vip)+":81/").Run())
		if code != 28 { // curl: timed out; 7 would be a refusal
			t.Errorf("port 81 of %s: curl ended with %d, want 28", vip, code)
		}
	}
}

func applyTwiceChangesNothing(t *testing.T, _ *blade) {
	ctl(t, "apply")
	converged(t)
	ctl(t, "plan", "--exit-code")
	before := status(t).Revision
	if out := ctl(t, "apply"); strings.Contains(out, "create") || strings.Contains(out, "update") {
		t.Errorf("the second apply did something:\n%s", out)
	}
	if after := status(t).Revision; after != before {
		t.Errorf("the second apply made revision %d of %d", after, before)
	}
}

func killLosesNoRequest(t *testing.T, b *blade) {
	const n = 300
	counts := make(chan map[string]int)
	go func() { counts <- ask(t, vip4, n) }()
	time.Sleep(300 * time.Millisecond)
	b.end(syscall.SIGKILL)
	time.Sleep(500 * time.Millisecond)
	rules := ruleset(t)
	b.start(t)
	converged(t)
	got := <-counts
	if got["www-1"]+got["www-2"] != n {
		t.Errorf("answered: %v, want %d", got, n)
	}
	if after := ruleset(t); after != rules {
		t.Errorf("the ruleset changed over a restart:\nbefore:\n%s\nafter:\n%s", rules, after)
	}
}

// counted are the elements of the sets that traffic fills: who was dropped, and who is held to a limit.
var counted = regexp.MustCompile(`(flags dynamic)\s+elements = \{[^}]*\}`)

// ruleset lists the filter without what traffic changes in it.
func ruleset(t *testing.T) string {
	t.Helper()
	return counted.ReplaceAllString(run(t, "nft", "-s", "list", "ruleset"), "$1")
}

func brokenPolicyLeavesTheBlade(t *testing.T, _ *blade) {
	rules, revision := ruleset(t), status(t).Revision
	write(t, "99-broken.yaml", "services:\n  shop:\n    zone: publik\n    vips: [203.0.113.11]\n    prots: [443/tcp]\n")
	out, code := try(t, "apply")
	for _, want := range []string{"99-broken.yaml:3:11", "99-broken.yaml:5:5", "public"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("apply: status %d, want 1 and a word on %q:\n%s", code, want, out)
		}
	}
	if ruleset(t) != rules || status(t).Revision != revision {
		t.Error("a broken policy changed the blade")
	}
	if !strings.Contains(status(t).Pending, "mistakes") {
		t.Errorf("status says %q of the broken folder", status(t).Pending)
	}
	if got := ask(t, vip4, 10); got["www-1"]+got["www-2"] != 10 {
		t.Errorf("answered: %v, want 10", got)
	}
}

func spawnAndDestroyLoseNoRequest(t *testing.T, _ *blade) {
	const n = 500
	counts := make(chan map[string]int)
	go func() { counts <- ask(t, vip4, n) }()
	ctl(t, "spawn", "realserver", "www-5", "--service", "www")
	ctl(t, "destroy", "www-5")
	got := <-counts
	total := 0
	for _, count := range got {
		total += count
	}
	if total != n {
		t.Errorf("answered: %v, want %d", got, n)
	}
	if got["www-5"] == 0 {
		t.Errorf("answered: %v: www-5 came and went without a request; the test shows nothing", got)
	}
	gone(t, "www-5")
}

func strangersDeletionsAreRepaired(t *testing.T, _ *blade) {
	for _, act := range [][]string{
		{"nft", "flush", "ruleset"},
		{"ip", "link", "set", "www-1.1", "nomaster"},
		{"ip", "link", "del", "vlan130"},
		{"nsenter", "--net=" + policy.NamespacePath("www-1"), "ip", "addr", "del", vip4 + "/32", "dev", "lo"},
		{"nsenter", "--net=" + policy.NamespacePath("www-2"), "ip", "-6", "route", "del", "default"},
	} {
		run(t, act...)
		converged(t)
		reachable(t)
		for _, vip := range []string{vip4, vip6} {
			if got := ask(t, vip, 10); got["www-1"]+got["www-2"] != 10 {
				t.Errorf("after %v: %s answered %v, want 10", act, vip, got)
			}
		}
	}
}

func libvirtdDownHoldsBackOnlyKVM(t *testing.T, _ *blade) {
	stopLibvirtd(t)
	ctl(t, "spawn", "realserver", "www-3", "--service", "www")
	waitingFor(t, "libvirt")
	startLibvirtd(t)
	converged(t)
	reachable(t) // its start stops the machine for seconds, which the router's sessions may not outlive
	if got := ask(t, vip4, 30); got["www-3"] == 0 {
		t.Errorf("answered by %v, want www-3 among them", got)
	}
}

func operatorLooksIntoGuests(t *testing.T, _ *blade) {
	if out, status := try(t, "exec", "www-2", "--", "sh", "-c", "hostname; exit 3"); out != "www-2\n" || status != 3 {
		t.Errorf("exec: status %d, %q, want 3 and the node's name", status, out)
	}
	if out, status := try(t, "exec", director, "uptime"); status != 1 || !strings.Contains(out, "commands run in containers") {
		t.Errorf("exec in a machine: status %d, %q", status, out)
	}
	// script(1) gives bladectl a terminal; what the node has is another one.
	out := run(t, "script", "-qec", "stty rows 33 cols 111; bladectl exec www-2 -- sh -c 'test -t 0 && stty size'", "/dev/null")
	if !strings.Contains(out, "33 111") {
		t.Errorf("in a terminal: %q, want its size", out)
	}
	if out := ctl(t, "logs", director, "-n", "0"); !strings.Contains(out, "Linux version") && !strings.Contains(out, "bladeguest") {
		t.Errorf("the director's console has neither its kernel's nor its helper's lines:\n%s", lastLines(out, 10))
	}
}

// topCounts asks for a while and finds in top that both nodes have had connections.
func topCounts(t *testing.T, _ *blade) {
	ask(t, vip4, 40)
	out := ctl(t, "top", "-n", "1", "--every", "3s")
	for _, node := range []string{"www-1", "www-2"} {
		if !regexp.MustCompile(`www +203\.0\.113\.10 +80/tcp +` + director + ` +` + node + ` +100 +\d+ +[1-9]\d* `).MatchString(out) {
			t.Errorf("%s has had no connection:\n%s", node, out)
		}
	}
}

// hungDirectorIsStartedAgain halts the director's qemu: libvirt says that it runs, and nothing in it moves.
func hungDirectorIsStartedAgain(t *testing.T, _ *blade) {
	const pidFile = "/run/libvirt/qemu/" + director + ".pid"
	pid := run(t, "cat", pidFile)
	run(t, "kill", "-STOP", strings.TrimSpace(pid))
	eventually(t, 3*time.Minute, "another director runs", func() error {
		now, err := os.ReadFile(pidFile)
		if err == nil && string(now) == pid {
			return errors.New("it is the old one")
		}
		return err
	})
	converged(t)
	reachable(t)
	if out := ctl(t, "events"); !strings.Contains(out, "its helper has not answered for") {
		t.Errorf("the journal does not say why:\n%s", lastLines(out, 20))
	}
}

// waitingFor waits until status has a line that says a word.
func waitingFor(t *testing.T, word string) api.Waiting {
	t.Helper()
	var found api.Waiting
	eventually(t, time.Minute, "status says "+word, func() error {
		for _, w := range status(t).Waiting {
			if strings.Contains(w.Step.Reason+w.Error, word) {
				found = w
				return nil
			}
		}
		return os.ErrNotExist
	})
	return found
}

func absentTrunkIsOneSentence(t *testing.T, _ *blade) {
	// A link that is up keeps its name, and bladed sets the trunk up again at once: be quicker.
	eventually(t, 10*time.Second, "the trunk goes", func() error {
		return exec.CommandContext(t.Context(), "sh", "-c", "ip link set "+trunk+" down && ip link set "+trunk+" name gone0").Run()
	})
	w := waitingFor(t, trunk)
	if !strings.Contains(w.Step.Reason, "trunk") {
		t.Errorf("status says %q, want a word on the trunk", w.Step.Reason)
	}
	ctl(t, "spawn", "realserver", "www-4", "--service", "www")        // the rest of the blade goes on
	eventually(t, 10*time.Second, "the trunk is back", func() error { // bladed may have set it up by its index at the last moment
		return exec.CommandContext(t.Context(), "sh", "-c", "ip link set gone0 down && ip link set gone0 name "+trunk).Run()
	})
	converged(t)
	reachable(t)
	if got := ask(t, vip6, 40); got["www-4"] == 0 {
		t.Errorf("answered by %v, want www-4 among them", got)
	}
}

func destroyLeavesNothing(t *testing.T, _ *blade) {
	for _, name := range []string{"www-4", "www-3", "www-2", director} {
		ctl(t, "destroy", name)
		converged(t)
		gone(t, name)
	}
}

// gone looks for anything of a guest: files, links, rules, mounts, cgroups, processes.
func gone(t *testing.T, name string) {
	t.Helper()
	if found := traces(t, name, folder, "/run/bladenet", "/var/lib/bladenet", "/sys/fs/cgroup", "/etc/libvirt", "/var/lib/libvirt"); len(found) > 0 {
		t.Errorf("files of %s: %v", name, found)
	}
	for _, list := range [][]string{{"ip", "-o", "link"}, {"nft", "list", "ruleset"}, {"cat", "/proc/self/mountinfo"}, {"virsh", "list", "--all"}} {
		out, err := exec.CommandContext(t.Context(), list[0], list[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", list, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, name) {
				t.Errorf("%v still has %s: %s", list, name, line)
			}
		}
	}
}
