// Package router is a router for tests of a director: FRR in a network namespace, with one link to the director.
package router

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Link is the network between directors and their router.
type Link struct {
	Interface string   // the router's
	Router4   string   // its address, by which it is also known
	Directors []string // addresses of both families
	BFD       time.Duration
}

const head = "frr defaults traditional\nlog stdout warnings\n"

// UsualBFD is the interval that `bfd: true` means on a director's side. A neighbour is down after three.
const UsualBFD = 300 * time.Millisecond

// Configs are the router's files, by daemon. It offers a default route, which no director may take.
func (l Link) Configs(protocol string) map[string]string {
	watch := func(line string) string {
		if l.BFD == 0 {
			return ""
		}
		return line + " bfd\n" + line + " bfd profile test\n"
	}
	pace := fmt.Sprintf("bfd\n profile test\n  detect-multiplier 3\n  receive-interval %[1]d\n  transmit-interval %[1]d\n", l.BFD.Milliseconds())
	out := map[string]string{"zebra": head}
	if l.BFD > 0 {
		out["bfdd"] = head + pace
	}
	if protocol == "bgp" {
		var peers, families string
		for _, a := range l.Directors {
			peers += " neighbor " + a + " remote-as 64512\n" + watch(" neighbor "+a)
			family := "ipv4"
			if strings.Contains(a, ":") {
				family = "ipv6"
			}
			families += fmt.Sprintf(" address-family %[1]s unicast\n  neighbor %[2]s activate\n  neighbor %[2]s default-originate\n exit-address-family\n", family, a)
		}
		out["bgpd"] = head + "router bgp 64500\n bgp router-id " + l.Router4 + "\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n" + peers + families
		return out
	}
	for daemon, word := range map[string]string{"ospfd": "ip ospf", "ospf6d": "ipv6 ospf6"} {
		process, id := "ospf", "ospf"
		if daemon == "ospf6d" {
			process, id = "ospf6", "ospf6"
		}
		out[daemon] = head + fmt.Sprintf("interface %[1]s\n %[2]s area 0\n %[2]s hello-interval 1\n %[2]s dead-interval 4\n%[3]sexit\nrouter %[4]s\n %[5]s router-id %[6]s\n default-information originate always\nexit\n",
			l.Interface, word, watch(" "+word), process, id, l.Router4)
	}
	return out
}

// Start runs the router's daemons in a network namespace, with their files in dir, until the test ends.
func (l Link) Start(t testing.TB, namespace, dir, protocol string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	u, err := user.Lookup("frr")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	configs, socket := l.Configs(protocol), filepath.Join(dir, "zserv.api")
	for _, name := range []string{"zebra", "bfdd", "ospfd", "ospf6d", "bgpd"} {
		if configs[name] == "" {
			continue
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file+".conf", []byte(configs[name]), 0o644); err != nil {
			t.Fatal(err)
		}
		args := []string{"netns", "exec", namespace, "/usr/lib/frr/" + name, "-f", file + ".conf", "-i", file + ".pid", "-z", socket, "--vty_socket", dir, "-P", "0", "-u", "frr", "-g", "frr"}
		if name == "bfdd" {
			args = append(args, "--bfdctl", file+".sock")
		}
		cmd := exec.Command("ip", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		for range 100 {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// Routes are what the kernel of a router's namespace has from a protocol, sorted.
func Routes(t testing.TB, namespace, protocol string) []string {
	t.Helper()
	var out []string
	for _, family := range []string{"-4", "-6"} {
		text, err := exec.Command("ip", family, "-n", namespace, "route", "show", "proto", protocol).CombinedOutput()
		if err != nil {
			t.Fatalf("routes of %s: %v: %s", namespace, err, text)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 0 && f[0] != "nexthop" {
				out = append(out, f[0])
			}
		}
	}
	slices.Sort(out)
	return out
}
