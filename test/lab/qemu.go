package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Addresses of the network that only the agent's card is on.
const (
	controlMAC     = "52:54:00:00:00:99"
	controlAddress = "10.0.2.15/24"
	controlPort    = 7000
)

// shares are the host's folders by virtiofs tag.
var shares = []string{"src", "images"}

// kernelLine lets a kernel that is in trouble say all of it on the console, warnings too, and end the machine at once: an oops is
// a panic, and a panic restarts, which -no-reboot turns into qemu's end. An idle processor halts without
// handing its timer over to another clock first, as Linux does for the old processor that qemu emulates.
const kernelLine = "console=ttyS0 idle=halt loglevel=5 oops=panic panic=-1 net.ifnames=0 rdinit=/init"

// qemuArgs is the command line of a lab's machine.
func qemuArgs(l *Lab, s spec) []string {
	// Four levels of page tables: a guest of the machine has every level of its own walked through those of the machine.
	cpu, accel := "max,la57=off", "tcg,thread=multi,tb-size=512"
	if s.Accel == "kvm" {
		cpu, accel = "host", "kvm"
	}
	args := []string{
		"-name", "bladenet-lab-" + s.Name,
		"-accel", accel, "-cpu", cpu, "-smp", strconv.Itoa(s.CPUs), "-m", strconv.Itoa(s.Memory),
		"-object", fmt.Sprintf("memory-backend-memfd,id=memory,size=%dM,share=on", s.Memory), "-numa", "node,memdev=memory",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "file:" + l.path(fileConsole),
		"-qmp", "unix:" + l.path(fileMonitor) + ",server=on,wait=off", "-qmp", "unix:" + l.path(fileControl) + ",server=on,wait=off",
		"-kernel", s.Kernel, "-initrd", l.path(fileInitrd),
		"-append", kernelLine,
		"-drive", "file=" + s.Root + ",format=raw,if=virtio,snapshot=on,cache=unsafe",
		"-netdev", fmt.Sprintf("user,id=control,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:%d", controlPort),
		"-device", "virtio-net-pci,netdev=control,romfile=,mac=" + controlMAC,
	}
	for _, tag := range shares {
		args = append(args,
			"-chardev", "socket,id="+tag+",path="+l.path(tag+".sock"),
			"-device", "vhost-user-fs-pci,chardev="+tag+",tag="+tag)
	}
	return args
}

// monitorLimit is how long qemu may take for one answer.
const monitorLimit = 20 * time.Second

// monitor speaks QMP (docs/interop/qmp-spec of qemu) with one machine.
type monitor struct {
	conn net.Conn
	r    *bufio.Reader
}

func openMonitor(socket string) (*monitor, error) {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	for end := time.Now().Add(monitorLimit); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		conn, err = net.DialTimeout("unix", socket, time.Second) // its file is there a moment before qemu listens
	}
	if err != nil {
		return nil, err
	}
	m := &monitor{conn, bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(monitorLimit))
	if _, err := m.r.ReadBytes('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("read greeting of qemu: %w", err), conn.Close())
	}
	if _, err := m.do("qmp_capabilities", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return m, nil
}

func (m *monitor) do(command string, arguments any) (json.RawMessage, error) {
	question, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if arguments == nil {
		question, err = json.Marshal(map[string]any{"execute": command})
	}
	if err != nil {
		return nil, err
	}
	_ = m.conn.SetDeadline(time.Now().Add(monitorLimit))
	if _, err := m.conn.Write(question); err != nil {
		return nil, fmt.Errorf("ask qemu for %s: %w", command, err)
	}
	for {
		line, err := m.r.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("ask qemu for %s: %w", command, err)
		}
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return nil, fmt.Errorf("ask qemu for %s: %w", command, err)
		}
		if answer.Error != nil {
			return nil, fmt.Errorf("ask qemu for %s: %s", command, answer.Error.Desc)
		}
		if answer.Return != nil { // else an event
			return answer.Return, nil
		}
	}
}

// forwardedPort asks which port of the host qemu has chosen for the agent's.
func (m *monitor) forwardedPort() (int, error) {
	raw, err := m.do("human-monitor-command", map[string]string{"command-line": "info usernet"})
	if err != nil {
		return 0, err
	}
	var table string
	if err := json.Unmarshal(raw, &table); err != nil {
		return 0, err
	}
	return parseForward(strings.NewReader(table))
}

// parseForward finds the host's port in the table of "info usernet".
func parseForward(r io.Reader) (int, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) >= 6 && f[0] == "TCP[HOST_FORWARD]" && f[5] == strconv.Itoa(controlPort) {
			return strconv.Atoi(f[3])
		}
	}
	return 0, errors.New("find forwarded port: qemu lists none")
}
