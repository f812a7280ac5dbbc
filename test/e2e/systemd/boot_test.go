//go:build lab

package systemd

import (
	"strings"
	"time"
)

// vips are what users of the one-blade fleet ask.
var vips = []string{"203.0.113.10", "[2001:db8:5::10]"}

// boots restarts a blade with a director and two real servers, as after a power cut, and with a policy folder that somebody has left half
// written. Nobody helps: the last good revision comes up, no port joins its bridge and no guest runs before the filter stands, and users are
// answered over both families.
func boots(m machine) {
	m.sh("bladectl spawn director dir-pub-l --site lombarderie; bladectl spawn realserver www --count 2 --service www --image web")
	answered(m)
	const revision = "bladectl status -o json | grep -m 1 '\"revision\"'"
	before := m.word(revision)
	m.sh("cp -r /etc/bladenet /root/whole; echo 'guests: {www-1: {role: ' >/etc/bladenet/guest-www-1.yaml; ! bladectl check")

	began := time.Now()
	if err := m.lab.Reboot(m.Context(), m.Output()); err != nil {
		m.Fatal(err)
	}
	up := time.Since(began)
	answered(m)
	m.Logf("users are answered over both families %.0f s after a restart was asked for; systemd had started everything after %.0f s", time.Since(began).Seconds(), up.Seconds())
	m.eventually(time.Minute, before, revision)
	inOrder(m, m.sh("journalctl --no-pager -b -o cat -u bladed"))
	m.sh("cp /root/whole/* /etc/bladenet/; bladectl destroy www-1 www-2 dir-pub-l")
}

// answered waits until a user gets an answer over both families.
func answered(m machine) {
	m.Helper()
	for _, vip := range vips {
		deadline := time.Now().Add(4 * time.Minute)
		for {
			out, status := m.tryIn("client", "curl -g -s -S -m 5 http://"+vip+"/")
			if status == 0 && strings.HasPrefix(out, "www-") {
				break
			}
			if time.Now().After(deadline) {
				m.Fatalf("%s does not answer: %q", vip, out)
			}
			time.Sleep(time.Second)
		}
	}
}

// inOrder reads in the daemon's log that the filter was there before any port was attached and any guest was started, and that all were.
func inOrder(m machine, log string) {
	m.Helper()
	var filter bool
	attached, started := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(log) {
		applied := strings.Contains(line, "msg=applied")
		switch guest := field(line, "guest"); {
		case !applied:
		case strings.Contains(line, "subsystem=filter"):
			filter = true
		case strings.Contains(line, `subsystem=guests step="start`):
			started[guest] = true
			if !filter || !attached[guest] {
				m.Errorf("%s was started without the filter (stood: %t) or its ports (attached: %t)", guest, filter, attached[guest])
			}
		case strings.Contains(line, `subsystem=links step="update`):
			attached[guest] = true
			if !filter {
				m.Errorf("a port of %s joined its bridge before the filter stood", guest)
			}
		}
	}
	if !filter || !started["dir-pub-l"] || !started["www-1"] || !started["www-2"] {
		m.Errorf("the log does not tell of the filter (%t) or of every guest's start (%v):\n%s", filter, started, log)
	}
}

// field is the value of a key in a line of the log.
func field(line, key string) string {
	_, value, _ := strings.Cut(line, " "+key+"=")
	value, _, _ = strings.Cut(value, " ")
	return strings.TrimSpace(value)
}
