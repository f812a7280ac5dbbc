//go:build kernel

package twoblades

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bladenet/bladenet/test/bench/traffic"
)

// What the fleet two-blades says, and where the lab has put it.
var (
	blades  = []string{"lame-l1", "lame-l2"}
	servers = map[string]string{"www-1": "lame-l1", "www-2": "lame-l2"} // and the blade of each
	webVIPs = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:5::10")}
	rrVIPs  = []netip.Addr{netip.MustParseAddr("203.0.113.12"), netip.MustParseAddr("2001:db8:5::12")} // of a service that is not in survive mode
	udpVIPs = []netip.Addr{netip.MustParseAddr("203.0.113.11"), netip.MustParseAddr("2001:db8:5::11")}
)

const (
	clientSpace = "/run/netns/client"
	webPort     = 80
	filePort    = 8080
	echoPort    = 7000
)

// run runs a program and returns what it printed.
func run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// on runs a program on a blade.
func on(t *testing.T, blade string, args ...string) string {
	t.Helper()
	return run(t, append([]string{"nsenter", "--net=/run/netns/" + blade, "--mount=/run/lab/ns/" + blade + ".mnt", "--"}, args...)...)
}

// spaceOf is the network namespace of a real server.
func spaceOf(t *testing.T, server string) string {
	t.Helper()
	pid := strings.TrimSpace(on(t, servers[server], "lxc-info", "-P", "/var/lib/bladenet/lxc", "-n", server, "-pH"))
	return "/proc/" + pid + "/ns/net"
}

// each calls do n times in a network namespace, a few at once, and returns the errors.
func each(space string, n int, do func(i int) error) []error {
	var mu sync.Mutex
	var errs []error
	note := func(err error) {
		if err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		}
	}
	numbers := make(chan int, n)
	for i := range n {
		numbers <- i
	}
	close(numbers)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			note(traffic.In(space, func() error {
				for i := range numbers {
					note(do(i))
				}
				return nil
			}))
		})
	}
	wait.Wait()
	return errs
}

// talk opens a connection from where its thread is, says something and reads to the end.
func talk(from, to netip.AddrPort, say string, limit time.Duration) (string, error) {
	d := net.Dialer{Timeout: limit}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, say); err != nil {
		return "", err
	}
	heard, err := io.ReadAll(c)
	return string(heard), err
}

// ask sends one request to a VIP and returns who answered.
func ask(vip netip.Addr) (string, error) {
	answer, err := talk(netip.AddrPort{}, netip.AddrPortFrom(vip, webPort), "GET / HTTP/1.0\r\n\r\n", 15*time.Second)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", vip, err)
	}
	_, body, _ := strings.Cut(answer, "\r\n\r\n")
	name := strings.TrimSpace(body)
	if servers[name] == "" {
		return "", fmt.Errorf("ask %s: answer %q", vip, answer)
	}
	return name, nil
}

// askMany sends n requests to each VIP and counts the answers by who gave them.
func askMany(t *testing.T, n int) map[string]int {
	t.Helper()
	var mu sync.Mutex
	count := map[string]int{}
	errs := each(clientSpace, n*len(webVIPs), func(i int) error {
		name, err := ask(webVIPs[i%len(webVIPs)])
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			count[name]++
		}
		return err
	})
	if len(errs) > 0 {
		t.Errorf("%d of %d requests failed, first: %v", len(errs), n*len(webVIPs), errs[0])
	}
	return count
}

// eventually calls ok until it returns nil.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v: %v", what, limit, err)
		}
	}
}

// untracked wants no conntrack entry of any VIP on any blade, by the kernel's own listing.
func untracked(t *testing.T) {
	t.Helper()
	for _, blade := range blades {
		for _, family := range []string{"ipv4", "ipv6"} {
			list := on(t, blade, "conntrack", "-L", "-f", family)
			for line := range strings.Lines(list) {
				for _, vip := range slices.Concat(webVIPs, udpVIPs, floatingVIPs) {
					if strings.Contains(line, "="+vip.String()+" ") {
						t.Errorf("%s tracks a VIP: %s", blade, line)
					}
				}
			}
		}
	}
}
