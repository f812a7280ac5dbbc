//go:build kernel

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/test/bench/traffic"
)

// drainedNodeFinishesWhatItHas: a user's open connection goes on at the drained node while new ones go to the other.
func drainedNodeFinishesWhatItHas(t *testing.T, _ *blade) {
	conn := dial(t, vip4)
	name := get(t, conn)
	other := map[string]string{"www-1": "www-2", "www-2": "www-1"}[name]
	said := make(chan string, 1)
	go func() {
		out, err := exec.Command("bladectl", "drain", name, "--wait", "2m").CombinedOutput()
		said <- fmt.Sprintf("%s%v", out, err)
	}()
	drained(t, name)
	if got := ask(t, vip4, 20); got[other] != 20 {
		t.Errorf("%s is drained and answers: %v", name, got)
	}
	if again := get(t, conn); again != name {
		t.Errorf("the open connection is answered by %s, was by %s", again, name)
	}
	conn.Close()
	out := <-said
	for _, want := range []string{"1 connections left", "0 connections left", "<nil>"} {
		if !strings.Contains(out, want) {
			t.Errorf("drain %s does not say %q:\n%s", name, want, out)
		}
	}
	if out, code := try(t, "drain", other); code != 1 || !strings.Contains(out, "www needs 1 and would have 0") {
		t.Errorf("the last node is drained: status %d\n%s", code, out)
	}
	ctl(t, "undrain", name)
	eventually(t, 30*time.Second, name+" answers again", func() error {
		if got := ask(t, vip4, 10); got[name] == 0 {
			return fmt.Errorf("answered by %v", got)
		}
		return nil
	})
}

// drained waits until the director gives a node no weight because it is drained, wherever it balances it.
func drained(t *testing.T, name string) {
	t.Helper()
	eventually(t, 30*time.Second, name+" is drained", func() error {
		places := 0
		for _, s := range status(t).Services {
			for _, n := range s.Destinations {
				if string(n.Guest) != name {
					continue
				}
				if places++; n.Weight != 0 || n.Reason != "drained" {
					return fmt.Errorf("%s: weight %d %s", s.Service, n.Weight, n.Reason)
				}
			}
		}
		if places == 0 { // a director that does not answer just now says nothing
			return errors.New("no director says that it balances it")
		}
		return nil
	})
}

// stoppedNodeStaysStopped: over a restart of bladed too; once started it takes connections again.
func stoppedNodeStaysStopped(t *testing.T, b *blade) {
	ctl(t, "stop", "www-1")
	b.end(syscall.SIGKILL)
	b.start(t)
	converged(t)
	for _, g := range status(t).Guests {
		if g.Name == "www-1" && (g.State != "stopped" || g.Held == "" || !g.Drained) {
			t.Errorf("www-1 is %+v, want stopped, held and drained", g)
		}
	}
	if got := ask(t, vip4, 10); got["www-2"] != 10 {
		t.Errorf("answered by %v, want 10 of www-2", got)
	}
	ctl(t, "start", "www-1")
	if got := ask(t, vip4, 20); got["www-1"] == 0 || got["www-1"]+got["www-2"] != 20 {
		t.Errorf("answered by %v, want www-1 among them", got)
	}
	if g := status(t).Guests; g[1].Held != "" || g[1].Drained {
		t.Errorf("www-1 is %+v after its start", g[1])
	}
}

// drainedDirectorAnnouncesNothing: its routers forget the VIPs, its loopback and its connections keep them.
func drainedDirectorAnnouncesNothing(t *testing.T, _ *blade) {
	if out, code := try(t, "drain", director); code != 1 || !strings.Contains(out, "no other director") {
		t.Errorf("the last director is drained: status %d\n%s", code, out)
	}
	ctl(t, "drain", director, "--force", "--wait", "0")
	for _, vip := range []string{vip4, vip6} {
		eventually(t, time.Minute, "the router forgets "+vip, func() error { return routed(t, vip, false) })
	}
	for _, s := range status(t).Services {
		if !s.Up {
			t.Errorf("%s at %s is down on a drained director", s.Service, s.VIP)
		}
	}
	ctl(t, "undrain", director)
	for _, vip := range []string{vip4, vip6} {
		eventually(t, time.Minute, "the router learns "+vip, func() error { return routed(t, vip, true) })
	}
	reachable(t)
}

// routed returns an error unless the router has, or has not, a route to a VIP alone.
func routed(t *testing.T, vip string, want bool) error {
	t.Helper()
	family := "-4"
	if strings.Contains(vip, ":") {
		family = "-6"
	}
	out := run(t, "ip", "-n", "router", family, "route", "show", vip)
	if has := strings.TrimSpace(out) != ""; has != want {
		return fmt.Errorf("routes: %q", out)
	}
	return nil
}

// dial opens a user's connection to a VIP's port 80.
func dial(t *testing.T, vip string) net.Conn {
	t.Helper()
	var conn net.Conn
	err := traffic.In("/run/netns/client", func() (err error) {
		conn, err = net.DialTimeout("tcp", net.JoinHostPort(vip, "80"), 10*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// get asks for the page that says who answers, on a connection that stays open.
func get(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: www\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}
