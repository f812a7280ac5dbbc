//go:build lab

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// command is the lab command, built once for the test.
type command struct {
	t    *testing.T
	path string
}

func buildCommand(t *testing.T) command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab")
	build := exec.Command("go", "build", "-o", path, "./cmd/lab")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build lab: %v\n%s", err, out)
	}
	return command{t, path}
}

func (c command) run(stdin string, args ...string) result {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(c.path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		c.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func (c command) must(args ...string) string {
	c.t.Helper()
	r := c.run("", args...)
	if r.Status != 0 {
		c.t.Fatalf("lab %s: status %d\n%s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// up starts labs at once, so that they can meet, and takes them down at the test's end.
func (c command) up(sets ...[]string) {
	c.t.Helper()
	var wait sync.WaitGroup
	results := make([]result, len(sets))
	for i, args := range sets {
		name := args[1]
		c.t.Cleanup(func() { _ = Down(name) })
		wait.Go(func() { results[i] = c.run("", append([]string{"up"}, args...)...) })
	}
	wait.Wait()
	for i, r := range results {
		c.t.Logf("lab up %v\n%s", sets[i], r.Stderr)
		if r.Status != 0 {
			c.t.Fatalf("lab up %v: status %d", sets[i], r.Status)
		}
	}
}

func TestTwoLabs(t *testing.T) {
	c := buildCommand(t)
	one, two := fmt.Sprintf("one-%d", os.Getpid()), fmt.Sprintf("two-%d", os.Getpid())
	c.up([]string{"--name", one}, []string{"--name", two, "--fleet", "testdata/two-zones", "--blades", "3"})

	t.Run("exec", func(t *testing.T) { testExec(command{t, c.path}, one) })
	t.Run("places", func(t *testing.T) { testPlaces(command{t, c.path}, one) })
	t.Run("announcements", func(t *testing.T) { testAnnouncements(command{t, c.path}, one) })
	t.Run("machine", func(t *testing.T) { testMachine(command{t, c.path}, one) })
	t.Run("blades", func(t *testing.T) { testBlades(command{t, c.path}, two) })
	t.Run("apart", func(t *testing.T) {
		c := command{t, c.path}
		c.must("exec", "--name", one, "--", "touch", "/root/mine")
		if r := c.run("", "exec", "--name", two, "--", "ls", "/root/mine"); r.Status != 2 {
			t.Errorf("a file of one lab is in the other: %+v", r)
		}
		if r := c.run("", "up", "--name", one); r.Status != 1 || !strings.Contains(r.Stderr, "it is up already") {
			t.Errorf("a lab that is up was started: %+v", r)
		}
	})
	t.Run("death", func(t *testing.T) { testDeath(command{t, c.path}, two) })
	t.Run("down", func(t *testing.T) { testDown(command{t, c.path}, one, two) })
}

func testExec(c command, name string) {
	exec := []string{"exec", "--name", name, "--"}
	for what, test := range map[string]struct {
		stdin string
		args  []string
		want  result
	}{
		"status":  {"", []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, result{7, "out\n", "err\n"}},
		"stdin":   {"a\x00b\n", []string{"cat"}, result{Stdout: "a\x00b\n"}},
		"quoting": {"", []string{"printf", "<%s>", "a b", "'", `"`, "$x", "", "\n", "*", "\xff"}, result{Stdout: "<a b><'><\"><$x><><\n><*><\xff>"}},
		"signal":  {"", []string{"sh", "-c", "kill -TERM $$"}, result{Status: 143}},
		"blade":   {"", []string{"hostname"}, result{Stdout: "lame-l1\n"}},
		"program": {"", []string{"sh", "-c", "command -v lab"}, result{Stdout: "/lab/bin/lab\n"}},
	} {
		if what == "program" && !exists("../../bin/lab") {
			continue // nothing was built there
		}
		if diff := cmp.Diff(test.want, c.run(test.stdin, append(exec, test.args...)...)); diff != "" {
			c.t.Errorf("%s (-want +got)\n%s", what, diff)
		}
	}
	if r := c.run("", append(exec, "no-such-program")...); r.Status != 127 || !strings.Contains(r.Stderr, "not found") {
		c.t.Errorf("no such program: %+v", r)
	}
	begin := time.Now()
	for range 10 {
		c.must(append(exec, "true")...)
	}
	c.t.Logf("one exec takes %v", time.Since(begin)/10)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func testPlaces(c command, name string) {
	in := func(place string, args ...string) result {
		return c.run("", append([]string{"exec", "--name", name, "--in", place, "--"}, args...)...)
	}
	for _, args := range [][]string{{"198.51.100.1"}, {"192.0.2.1"}, {"-6", "2001:db8:111::1"}} {
		if r := in("client", append([]string{"ping", "-c", "1", "-W", "5"}, args...)...); r.Status != 0 {
			c.t.Errorf("ping %v from the client: %+v", args, r)
		}
	}
	for place, link := range map[string]string{"router": "vlan111", "client": "eth0", "blade": "eno1", "lame-l1": "eno1", "machine": "eno1"} {
		if r := in(place, "cat", "/sys/class/net/"+link+"/operstate"); r.Stdout != "up\n" {
			c.t.Errorf("%s of %s: %+v", link, place, r)
		}
	}
	if r := in("router", "vtysh", "-N", "router", "-c", "show ip ospf interface vlan111"); !strings.Contains(r.Stdout, "Hello 1s, Dead 4s") {
		c.t.Errorf("OSPF of the router: %+v", r)
	}
	if r := in("router", "hostname"); r.Stdout != "router\n" {
		c.t.Errorf("the router calls itself %q", r.Stdout)
	}
	if r := in("nowhere", "true"); r.Status != 125 || !strings.Contains(r.Stderr, "there are blade") {
		c.t.Errorf("a place that is not there: %+v", r)
	}
	// A namespace that a blade's agent keeps, and a container.
	c.must("exec", "--name", name, "--", "sh", "-ec", "ip netns add g1; mkdir -p /run/bladenet/netns; touch /run/bladenet/netns/g2; mount --bind /run/netns/g1 /run/bladenet/netns/g2; ip -n g1 link add inside type dummy")
	if r := in("g2", "ip", "-o", "link", "show", "inside"); r.Status != 0 {
		c.t.Errorf("namespace of a guest: %+v", r)
	}
	c.must("exec", "--name", name, "--", "sh", "-ec", containerScript)
	if r := in("box", "/bin/busybox", "hostname"); r.Stdout != "box\n" {
		c.t.Errorf("container: %+v", r)
	}
	if r := in("net:box", "sh", "-c", "ip -o link; hostname"); !strings.Contains(r.Stdout, "lo") || !strings.HasSuffix(r.Stdout, "lame-l1\n") {
		c.t.Errorf("network of the container: %+v", r)
	}
}

// containerScript starts a container of busybox in a folder that is not LXC's own.
const containerScript = `
root=/srv/box/rootfs
mkdir -p $root/bin $root/proc $root/sys $root/dev
cp /bin/busybox $root/bin/
cat >/srv/box/config <<END
lxc.uts.name = box
lxc.rootfs.path = dir:$root
lxc.apparmor.profile = unconfined
lxc.net.0.type = empty
lxc.autodev = 1
lxc.mount.auto = proc:mixed sys:ro
lxc.init.cmd = /bin/busybox sleep 1000
END
lxc-start -P /srv -n box
lxc-wait -P /srv -n box -s RUNNING -t 20
`

func testMachine(c command, name string) {
	exec := []string{"exec", "--name", name, "--"}
	c.must(append(exec, "virsh", "-q", "-c", "qemu:///system", "list")...)
	c.must(append(exec, "test", "-c", "/dev/kvm", "-a", "-c", "/dev/vhost-vsock", "-a", "-c", "/dev/vhost-net")...)
	c.must(append(exec, "test", "-f", "/etc/bladenet/10-ground.yaml", "-a", "-f", "/lab/src/go.mod", "-a", "-d", "/lab/images")...)
	if r := c.run("", append(exec, "touch", "/lab/src/x")...); r.Status != 1 {
		c.t.Errorf("the repository can be written: %+v", r)
	}
	for _, module := range []string{"8021q", "ip_vs_mh", "nf_conntrack_bridge", "nft_meta_bridge", "vhost_vsock", "kvm_amd"} {
		if r := c.run("", append(exec, "test", "-d", "/sys/module/"+module)...); r.Status != 0 && module != "kvm_amd" {
			c.t.Errorf("module %s is not loaded", module)
		}
	}
	// Nothing on the blade can cut the way in.
	rules := "add table inet x; add chain inet x i {type filter hook input priority 0; policy drop;}; add chain inet x o {type filter hook output priority 0; policy drop;}"
	c.must(append(exec, "nft", rules)...)
	c.must(append(exec, "nft", "flush", "ruleset")...)
}

func testBlades(c command, name string) {
	in := func(place string, args ...string) string {
		return c.must(append([]string{"exec", "--name", name, "--in", place, "--"}, args...)...)
	}
	for blade, trunk := range map[string]string{"a1": "eno1", "b1": "eno1", "c1": "enp1s0"} {
		in(blade, "test", "-d", "/sys/class/net/"+trunk, "-a", "-f", "/etc/bladenet/fleet.yaml")
		if got := in(blade, "hostname"); got != blade+"\n" {
			c.t.Errorf("%s calls itself %q", blade, got)
		}
		in(blade, "touch", "/var/lib/bladenet/"+blade, "/run/bladenet/"+blade)
		if got := in(blade, "sh", "-c", "ls /var/lib/bladenet; ls /run/bladenet"); got != blade+"\n"+blade+"\n" {
			c.t.Errorf("%s sees files of others: %q", blade, got)
		}
		in(blade, "virsh", "-q", "-c", "qemu:///system", "list")
	}
	if got := in("blade", "hostname"); got != "a1\n" {
		c.t.Errorf("the blade that is meant without a name is %q", got)
	}
	// Two blades meet in one VLAN on the switch.
	for i, blade := range []string{"a1", "b1"} {
		in(blade, "sh", "-ec", fmt.Sprintf("ip link add link eno1 name vlan120 type vlan id 120; ip link set vlan120 up; ip addr add 10.12.3.%d/22 dev vlan120", i+1))
	}
	in("a1", "ping", "-c", "1", "-W", "5", "10.12.3.2")
	// A guest's namespace that only its own blade's mounts show.
	in("b1", "sh", "-ec", "unshare -n sh -ec 'mkdir -p /run/bladenet/netns; touch /run/bladenet/netns/g; ip link add onb1 type dummy; mount --bind /proc/self/ns/net /run/bladenet/netns/g'")
	in("g", "ip", "link", "show", "onb1")
}

// testDeath kills a machine and reads why it is gone, in the command that it took along and in the next one.
func testDeath(c command, name string) {
	c.t.Cleanup(func() {
		for _, kept := range consoles(name) {
			_ = os.Remove(kept)
		}
	})
	for _, args := range [][]string{{"sh", "-c", "echo c >/proc/sysrq-trigger; sleep 30"}, {"true"}} {
		r := c.run("", append([]string{"exec", "--name", name, "--in", "machine", "--"}, args...)...)
		for _, want := range []string{"the machine has stopped", "Kernel panic", "Call Trace", "sysrq_handle_crash"} {
			if r.Status != 125 || !strings.Contains(r.Stderr, want) {
				c.t.Errorf("%v: want %q and status 125: %+v", args, want, r)
			}
		}
	}
	if kept := consoles(name); len(kept) != 1 {
		c.t.Errorf("kept consoles: %v, want one", kept)
	}
}

func testDown(c command, names ...string) {
	for _, name := range names {
		c.must("down", "--name", name)
		c.must("down", "--name", name)
		if exists(filepath.Join(Folder(), name)) {
			c.t.Errorf("state of %s is left", name)
		}
		for _, file := range []string{"/proc/self/mounts", "/proc/net/unix"} {
			if data, err := os.ReadFile(file); err != nil || strings.Contains(string(data), "/"+name+"/") {
				c.t.Errorf("%s still names %s (%v)", file, name, err)
			}
		}
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, line := range lines {
			data, _ := os.ReadFile(line)
			if strings.Contains(string(data), name) {
				c.t.Errorf("a process is left: %q", data)
			}
		}
		if r := c.run("", "exec", "--name", name, "--", "true"); r.Status != 125 || !strings.Contains(r.Stderr, "is not up") {
			c.t.Errorf("exec after down: %+v", r)
		}
	}
}
