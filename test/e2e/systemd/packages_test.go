//go:build lab

package systemd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// most is how exposed systemd may find bladed, in tenths. It has no mounts of its own and no seccomp filter, since containers inherit both; the
// unit says why.
const most = 87

// TestPackagesComeAndGo installs, restarts the machine, upgrades, removes and purges, on a blade with a running guest that is asked without a pause.
func TestPackagesComeAndGo(t *testing.T) {
	m := up(t, "packages")
	for _, step := range []struct {
		what string
		do   func(machine)
	}{
		{"install", installs},
		{"capabilities", capabilities},
		{"exposure", exposure},
		{"boot", boots},
		{"guest", guest},
		{"upgrade", upgrades},
		{"watchdog", watchdog},
		{"remove", removes},
		{"purge", purges},
	} {
		if !t.Run(step.what, func(t *testing.T) {
			began := time.Now()
			step.do(m.in(t))
			t.Logf("%.1f s", time.Since(began).Seconds())
		}) {
			return
		}
	}
}

func installs(m machine) {
	m.sh(`mkdir -p /etc/default; echo 'BLADED_OPTIONS="--images /lab/images"' >/etc/default/bladed
dpkg --force-confold -i ` + m.deb("bladenet-guest") + " " + m.deb("bladenet"))
	m.eventually(2*time.Minute, "active", "systemctl is-active bladed || true")
	m.sh(`systemd-analyze verify --man=no bladed.service
bash -n /usr/share/bash-completion/completions/bladectl
getent group bladenet
test "$(systemctl show -P Type bladed)" = notify
test "$(systemctl is-enabled bladed)" = enabled
test "$(stat -c %G:%a /run/bladenet/bladed.sock)" = bladenet:660
bladectl check`)
	// A small machine may be told to leave documentation out.
	m.sh("dpkg-deb -x " + m.deb("bladenet") + " /tmp/tree")
	for _, page := range []string{"bladed", "bladectl"} {
		if text := m.sh("gzip -dc /tmp/tree/usr/share/man/man8/" + page + ".8.gz"); !strings.HasPrefix(text, ".TH "+strings.ToUpper(page)) {
			m.Errorf("the page of %s begins %.40q", page, text)
		}
	}
}

// capabilities compares what the daemon can do with what its unit says, and that with what is never needed.
func capabilities(m machine) {
	status := m.sh("cat /proc/$(systemctl show -P MainPID bladed)/status")
	have := map[string]string{}
	for line := range strings.Lines(status) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			have[name] = strings.TrimSpace(value)
		}
	}
	names := strings.Fields(m.sh("systemctl show -P CapabilityBoundingSet bladed"))
	var bounded uint64
	for _, name := range names {
		bit, ok := capability[strings.ToUpper(name)]
		if !ok {
			m.Errorf("the unit leaves the daemon %s, which is not listed here with a reason", name)
		}
		bounded |= 1 << bit
	}
	if len(names) != len(capability) {
		m.Errorf("the unit leaves the daemon %d capabilities, %d are listed here: %v", len(names), len(capability), names)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if got, err := strconv.ParseUint(have[set], 16, 64); err != nil || got != bounded {
			m.Errorf("%s is %s, the unit says %016x", set, have[set], bounded)
		}
	}
	if have["CapInh"] != "0000000000000000" || have["CapAmb"] != "0000000000000000" || have["NoNewPrivs"] != "1" {
		m.Errorf("a child may gain something:\n%s", status)
	}
}

// exposure holds what systemd thinks of the unit.
func exposure(m machine) {
	out, status := m.try(fmt.Sprintf("systemd-analyze security --no-pager --threshold=%d bladed.service | tail -n 1; exit ${PIPESTATUS[0]}", most))
	m.Log(strings.TrimSpace(out))
	if status != 0 {
		m.Errorf("more exposed than %d.%d: status %d", most/10, most%10, status)
	}
}

// Where an operator of the fleet's rule "admin" sits, and the guest that he looks after.
const (
	operator = "203.0.113.241"
	served   = "198.51.100.2"
)

func guest(m machine) {
	m.sh("bladectl spawn realserver www-1 --service www --image web")
	before := m.ours()
	for _, want := range []string{"br120", "www-1.0", "table bridge bladenet", "/run/bladenet/netns/www-1", "/sys/fs/cgroup/bladenet/guest/www-1/cgroup.procs"} {
		if !strings.Contains(before, want) {
			m.Errorf("the blade has no %s:\n%s", want, before)
		}
	}
	m.sh("bladectl status | head -n 1 | grep -q 'as wanted'")
	if out, status := m.tryIn("client", "ip addr add "+operator+"/32 dev lo; for i in $(seq 60); do ping -c 1 -W 1 -I "+operator+" "+served+" >/dev/null && exit; done; exit 1"); status != 0 {
		m.Fatalf("the guest does not answer an operator: %s", out)
	}
}

// upgrades puts a later version in the place of the one that runs, and that one again, under pings and a connection that is held.
func upgrades(m machine) {
	before, rules := m.ours(), m.sh("nft -s list ruleset | sha256sum")
	asked := m.background("client", "ping -i 0.05 -W 5 -I "+operator+" "+served+" & cat >/dev/null; kill -INT $!; wait $!")
	answer := m.background("net:www-1", "socat TCP4-LISTEN:22,reuseaddr EXEC:cat & cat >/dev/null; wait $!")
	m.eventually(time.Minute, "1", "nsenter --net=/run/bladenet/netns/www-1 ss -Hltn sport = :22 | wc -l")
	held := m.background("client", `(i=0; while read -t 0.1; [ $? -gt 128 ]; do i=$((i+1)); echo $i; done; echo sent $i >&2; sleep 2) | socat -t 5 - TCP4:`+served+`:22,bind=`+operator+` | tail -n 1`)
	pid := m.word("systemctl show -P MainPID bladed")
	for _, deb := range []string{m.next("bladenet"), m.deb("bladenet")} {
		m.sh("dpkg --force-confold --force-downgrade -i " + deb)
		m.eventually(2*time.Minute, "active", "systemctl is-active bladed || true")
		now := m.word("systemctl show -P MainPID bladed")
		if now == pid {
			m.Errorf("bladed is still process %s of the version before", pid)
		}
		pid = now
		m.sh("bladectl plan --exit-code")
	}
	lines := strings.Fields(held()) // "sent N", then the last line that came back
	answer()
	pings := asked()
	if now := m.ours(); now != before {
		m.Errorf("an upgrade changed the blade:\n%s\nbefore:\n%s", now, before)
	}
	if now := m.sh("nft -s list ruleset | sha256sum"); now != rules {
		m.Errorf("an upgrade changed the rules: %s", m.sh("nft -s list ruleset"))
	}
	if len(lines) != 3 || lines[1] != lines[2] || lines[1] == "0" {
		m.Errorf("the held connection: %q", lines)
	}
	summary := ""
	for line := range strings.Lines(pings) {
		if strings.Contains(line, "packets transmitted") {
			summary = strings.TrimSpace(line)
		}
	}
	m.Logf("two upgrades: %s; %s lines over a held connection", summary, strings.Join(lines, " "))
	var sent, got int
	if n, _ := fmt.Sscanf(summary, "%d packets transmitted, %d received", &sent, &got); n != 2 || sent < 20 || sent-got > 1 { // the last may be under way
		m.Errorf("pings over two upgrades: %s", summary)
	}
}

// watchdog stops the daemon's process, as a fault that blocks it would: systemd takes it for hung and starts it anew.
func watchdog(m machine) {
	before := m.ours()
	m.sh(`mkdir -p /run/systemd/system/bladed.service.d
printf '[Service]\nWatchdogSec=10s\n' >/run/systemd/system/bladed.service.d/short.conf
systemctl daemon-reload; systemctl restart bladed`)
	pid := m.word("systemctl show -P MainPID bladed")
	m.sh("kill -STOP " + pid)
	m.eventually(3*time.Minute, "again", `pid=$(systemctl show -P MainPID bladed); [ $pid != 0 ] && [ $pid != `+pid+` ] && systemctl is-active -q bladed && echo again`)
	m.sh("journalctl --no-pager -u bladed | grep -q 'Watchdog timeout'; bladectl plan --exit-code")
	if now := m.ours(); now != before {
		m.Errorf("the watchdog changed the blade:\n%s\nbefore:\n%s", now, before)
	}
	m.sh("rm -r /run/systemd/system/bladed.service.d; systemctl daemon-reload")
}

func removes(m machine) {
	before := m.ours()
	if out := m.sh("dpkg -r bladenet"); !strings.Contains(out, "stay as they are") {
		m.Errorf("remove does not say what it leaves:\n%s", out)
	}
	if now := m.ours(); now != before {
		m.Errorf("remove changed the blade:\n%s\nbefore:\n%s", now, before)
	}
	m.sh("test ! -e /usr/sbin/bladed; test ! -e /run/bladenet/bladed.sock; ! systemctl is-active -q bladed")
	if out, status := m.tryIn("client", "ping -c 1 -W 5 -I "+operator+" "+served); status != 0 {
		m.Errorf("without its agent the guest does not answer: %s", out)
	}
}

func purges(m machine) {
	m.sh("dpkg -P bladenet bladenet-guest")
	if now := m.ours(); now != "" {
		m.Errorf("purge left:\n%s", now)
	}
	for _, path := range []string{"/var/lib/bladenet", "/run/bladenet", "/etc/bladenet", "/etc/default/bladed", "/etc/systemd/system/multi-user.target.wants/bladed.service"} {
		if out, status := m.try("ls -d " + path + " " + path + "/*"); status == 0 {
			m.Errorf("purge left %s", out)
		}
	}
	m.sh("! getent group bladenet; test $(systemctl is-system-running) = running; ! systemctl cat bladed 2>/dev/null")
}
