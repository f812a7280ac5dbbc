//go:build kernel

package twoblades

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// sessions is how many connections are open when a director dies, over both VIPs.
const sessions = 200

// session is one open connection of a user and the real server that answers it.
type session struct {
	conn   net.Conn
	in     *bufio.Reader
	server string
}

// request asks on the open connection who answers.
func (s *session) request(limit time.Duration) (string, error) {
	_ = s.conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(s.conn, "GET / HTTP/1.1\r\nHost: www\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return strings.TrimSpace(string(body)), err
}

// open makes sessions and asks on each once.
func open(t *testing.T, n int) []*session {
	t.Helper()
	out := make([]*session, n)
	errs := each(clientSpace, n, func(i int) error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(webVIPs[i%len(webVIPs)], webPort).String(), 15*time.Second)
		if err != nil {
			return err
		}
		s := &session{conn: conn, in: bufio.NewReader(conn)}
		out[i] = s
		s.server, err = s.request(15 * time.Second)
		return err
	})
	t.Cleanup(func() {
		for _, s := range out {
			if s != nil {
				_ = s.conn.Close()
			}
		}
	})
	if len(errs) > 0 {
		t.Fatalf("%d of %d sessions cannot be opened, first: %v", len(errs), n, errs[0])
	}
	return out
}

// TestADirectorDies gives the fleet a second director, and kills the machine of the one that users' packets go by, as a power cut does. Every
// session goes on at the real server that it was at: the other director has the same table. Each family may go by a director of its own.
func TestADirectorDies(t *testing.T) {
	eventually(t, 10*time.Minute, "both real servers answer over both VIPs", bothAnswer)
	secondDirector(t)
	for _, vip := range webVIPs {
		list := open(t, sessions)
		director, _ := onTheWay(t, vip)
		kill(t, director)
		goOn(t, list, director)
		if now, _ := onTheWay(t, vip); now == director {
			t.Errorf("%s is back already: nothing shows that the other one took over", director)
		}
		for _, other := range webVIPs {
			eventually(t, 3*time.Minute, director+" is back", func() error { return twoWays(t, other) })
		}
	}
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

// goOn wants an answer on each session, from the real server that answered before.
func goOn(t *testing.T, list []*session, killed string) {
	t.Helper()
	died := time.Now()
	var mu sync.Mutex
	var longest time.Duration
	errs := each(clientSpace, len(list), func(i int) error {
		name, err := list[i].request(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, time.Since(died))
		if err == nil && name != list[i].server {
			err = fmt.Errorf("a session of %s is answered by %s", list[i].server, name)
		}
		return err
	})
	if len(errs) > 0 {
		t.Errorf("%s was killed: %d of %d sessions did not go on, first: %v", killed, len(errs), len(list), errs[0])
		for _, blade := range blades {
			t.Logf("%s saw:\n%s", blade, on(t, blade, "bladectl", "events", "-n", "30", "--kind", "rotation,guest"))
		}
	}
	t.Logf("%s was killed under %d sessions: the last one was answered after %s", killed, len(list), longest.Round(10*time.Millisecond))
}

// onTheWay is the director by which the router sends a user's packets, and its blade.
func onTheWay(t *testing.T, vip netip.Addr) (director, blade string) {
	t.Helper()
	out := run(t, "ip", "-n", "router", "route", "get", vip.String(), "from", userOf(vip), "iif", "users")
	for i, address := range []string{"192.0.2.2", "192.0.2.3"} {
		name := fmt.Sprintf("dir-%d", i+1)
		if vip.Is6() { // OSPFv3 goes by link-local addresses
			address = policy.LinkLocal(policy.MACOf(policy.GuestName(name), "eth0")).String()
		}
		if strings.Contains(out, "via "+address+" ") {
			return name, blades[i]
		}
	}
	t.Fatalf("the router sends %s by no director:\n%s", vip, out)
	return "", ""
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
