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

// Link is the network between a director and its router.
type Link struct {
	Interface            string // the router's
	Router4, Router6     string
	Director4, Director6 string
	BFD                  bool
}

const head = "frr defaults traditional\nlog stdout warnings\n"

// pace is BFD's on the router's side: what `bfd: true` means on the director's.
const pace = `bfd
 profile test
  detect-multiplier 3
  receive-interval 300
  transmit-interval 300
`

// Configs are the router's files, by daemon. It offers a default route, which no director may take.
func (l Link) Configs(protocol string) map[string]string {
	watch := func(line string) string {
		if !l.BFD {
			return ""
		}
		return line + " bfd\n" + line + " bfd profile test\n"
	}
	out := map[string]string{"zebra": head, "bfdd": head + pace}
	if protocol == "bgp" {
		var peers string
		for _, a := range []string{l.Director4, l.Director6} {
			peers += " neighbor " + a + " remote-as 64512\n" + watch(" neighbor "+a)
		}
		out["bgpd"] = head + `router bgp 64500
 bgp router-id ` + l.Router4 + `
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
` + peers + ` address-family ipv4 unicast
  neighbor ` + l.Director4 + ` activate
  neighbor ` + l.Director4 + ` default-originate
 exit-address-family
 address-family ipv6 unicast
  neighbor ` + l.Director6 + ` activate
  neighbor ` + l.Director6 + ` default-originate
 exit-address-family
`
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
