//go:build kernel

package e2e

import (
	"bytes"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
	"github.com/bladenet/bladenet/test/bench/traffic"
)

// attacker is the container into which somebody has broken.
const attacker = "www-1"

// aGuestAttacksInVain is root in a real server: it sends every class of attack by raw sockets, and some by the tools that everybody has. Nothing
// of it reaches another port, the trunk or the blade itself, status names each reason at the port, and users are served on.
func aGuestAttacksInVain(t *testing.T, _ *blade) {
	framesAttackInVain(t)
	toolsAttackInVain(t)
	if got := ask(t, vip4, 10); got["www-1"]+got["www-2"] != 10 {
		t.Errorf("answered: %v, want 10", got)
	}
}

// framesAttackInVain sends every class of attack that the table has for the container's ports.
func framesAttackInVain(t *testing.T) {
	t.Helper()
	before := status(t).Filter.Ports
	attacks := filtertest.Attacks(attackedBlade(t), attacker)
	leaks, control := attack(t, attacks)
	for _, leak := range leaks {
		t.Errorf("seen elsewhere: %s", leak)
	}
	if !control {
		t.Error("not even a frame that is allowed was seen at the trunk: the test shows nothing")
	}

	after := status(t).Filter.Ports
	for port, reasons := range expected(attacks) {
		for reason, n := range reasons {
			if got := after[port][string(reason)] - before[port][string(reason)]; got < n {
				t.Errorf("%s: %d drops for %s in status, want %d at least", port, got, reason, n)
			}
		}
	}
	text := ctl(t, "status")
	for port, reasons := range expected(attacks) {
		for reason := range reasons {
			if !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
				return strings.Contains(line, port) && strings.Contains(line, " "+string(reason)+"=")
			}) {
				t.Errorf("status names no %s at %s", reason, port)
			}
		}
	}
}

// attackedBlade is the wanted state of the blade, from the files that the daemon follows.
func attackedBlade(t *testing.T) policy.Blade {
	t.Helper()
	files, err := policy.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	f, diagnostics := policy.Load(files)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	b, err := policy.Derive(f, "lame-l1")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// expected counts the drops that the attacks must cause, by port and reason.
func expected(attacks []filtertest.Attack) map[string]map[filter.Reason]uint64 {
	out := map[string]map[filter.Reason]uint64{}
	for _, a := range attacks {
		if out[a.Packet.In] == nil {
			out[a.Packet.In] = map[filter.Reason]uint64{}
		}
		if a.Reason != "" {
			out[a.Packet.In][a.Reason]++
		}
	}
	return out
}

// attack sends the frames from inside the container, each once, while it watches every interface of the blade. It returns those that were
// seen anywhere but at the port that they came from, and whether a gratuitous ARP for the container's own address was seen at the trunk.
func attack(t *testing.T, attacks []filtertest.Attack) (leaks []string, control bool) {
	t.Helper()
	watch := packetSocket(t, "")
	speak := packetSocket(t, policy.NamespacePath(attacker))
	sent := make([][]byte, len(attacks))
	for i, a := range attacks {
		sent[i] = a.Frame(uint32(0x4000 + i))
	}
	allowed := ownARP(t)

	inside := map[string]int{}
	for port, link := range map[string]string{attacker + ".0": "eth0", attacker + ".1": "eth1"} {
		inside[port] = index(t, policy.NamespacePath(attacker), link)
	}
	send := func(port string, frame []byte) {
		if err := unix.Sendto(speak, frame, 0, &unix.SockaddrLinklayer{Ifindex: inside[port]}); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range attacks {
		send(a.Packet.In, sent[i])
		time.Sleep(5 * time.Millisecond) // below the limit on broadcasts
	}
	send(attacker+".0", allowed)

	for _, seen := range frames(t, watch, time.Second) {
		if bytes.Equal(seen.data, allowed) && seen.port == "vlan130" {
			control = true
		}
		for i, a := range attacks {
			if seen.port != a.Packet.In && same(seen.data, sent[i]) {
				leaks = append(leaks, a.Class+" from "+a.Packet.In+" at "+seen.port)
			}
		}
	}
	return leaks, control
}

// same says whether a frame was sent as it is or with a tag that the kernel has put aside.
func same(seen, sent []byte) bool {
	return bytes.Equal(seen, sent) || len(seen) > 12 && bytes.Equal(seen[:12], sent[:12]) && bytes.Equal(seen[12:], sent[16:])
}

// ownARP is a gratuitous ARP for the container's own address.
func ownARP(t *testing.T) []byte {
	t.Helper()
	for _, g := range attackedBlade(t).Guests {
		if g.Name == attacker {
			p := g.Ports[0]
			return filter.Packet{
				Source: p.MAC, Destination: policy.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EtherType: 0x0806,
				ARP: &filter.ARP{Operation: 1, SenderMAC: p.MAC, Sender: p.Addresses[0], Target: p.Addresses[0]},
			}.Frame(0x3fff)
		}
	}
	t.Fatalf("no guest %s", attacker)
	return nil
}

// toolsAttackInVain does as a burglar would who brings nothing along.
func toolsAttackInVain(t *testing.T) {
	t.Helper()
	for _, c := range []struct {
		command string
		port    string
		reason  filter.Reason
	}{
		{"arping -c 2 -w 3 -U -I eth0 " + vip4, "www-1.0", filter.VIPARP},
		{"arping -c 2 -w 3 -U -I eth1 " + vip4, "www-1.1", filter.VIPARP},
		{"curl -s -m 2 --interface " + vip4 + " http://198.18.0.7/", "www-1.0", filter.VIPSyn},
		{"curl -g -s -m 2 --interface " + vip6 + " http://[2001:db8:c0::7]/", "www-1.0", filter.VIPSyn},
		{"curl -s -m 2 http://198.18.0.7/", "www-1.0", filter.NoRule},
		{"ping -c 1 -W 1 -I " + vip4 + " 198.18.0.7", "www-1.0", filter.VIPICMP},
	} {
		before := status(t).Filter.Ports[c.port][string(c.reason)]
		args := append([]string{"--net=" + policy.NamespacePath(attacker)}, strings.Fields(c.command)...)
		if out, err := exec.CommandContext(t.Context(), "nsenter", args...).CombinedOutput(); err == nil && !strings.HasPrefix(c.command, "arping -c 2 -w 3 -U") {
			t.Errorf("%s: was answered:\n%s", c.command, out)
		}
		if after := status(t).Filter.Ports[c.port][string(c.reason)]; after <= before {
			t.Errorf("%s: %s counts %d drops for %s, as before", c.command, c.port, after, c.reason)
		}
	}
}

// seenFrame is a frame and the interface of the blade at which it was seen.
type seenFrame struct {
	port string
	data []byte
}

// frames reads what a socket has seen, until the time is over.
func frames(t *testing.T, fd int, limit time.Duration) []seenFrame {
	t.Helper()
	names := map[int]string{}
	var out []seenFrame
	buf := make([]byte, 65536)
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		i := from.(*unix.SockaddrLinklayer).Ifindex
		if names[i] == "" {
			if link, err := net.InterfaceByIndex(i); err == nil {
				names[i] = link.Name
			}
		}
		out = append(out, seenFrame{port: names[i], data: bytes.Clone(buf[:n])})
	}
	return out
}

// packetSocket sees and sends every frame of a network namespace; without a path, of the blade's own.
func packetSocket(t *testing.T, namespace string) int {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	fd := -1
	within(t, namespace, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	return fd
}

func index(t *testing.T, namespace, link string) int {
	t.Helper()
	i := 0
	within(t, namespace, func() error {
		l, err := net.InterfaceByName(link)
		if err == nil {
			i = l.Index
		}
		return err
	})
	return i
}

// within calls do in a network namespace; "" is the test's own.
func within(t *testing.T, namespace string, do func() error) {
	t.Helper()
	err := error(nil)
	if namespace == "" {
		err = do()
	} else {
		err = traffic.In(namespace, do)
	}
	if err != nil {
		t.Fatal(err)
	}
}
