package announce

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The names are what users of MetalLB have complained of, with the numbers of the reports.

// terminal is a daemon's terminal socket that answers each command with a status and remembers it.
type terminal struct {
	mu   sync.Mutex
	said []string
}

func (v *terminal) listen(t *testing.T, socket string, status byte) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go v.serve(c, status)
		}
	}()
}

func (v *terminal) serve(c net.Conn, status byte) {
	defer c.Close()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		v.mu.Lock()
		v.said = append(v.said, strings.TrimRight(string(buf[:n]), "\x00"))
		v.mu.Unlock()
		if _, err := c.Write([]byte{0, 0, 0, status}); err != nil {
			return
		}
	}
}

// told is a supervisor whose ospfd runs with one VIP and has just been told of a second one; its terminal answers with a status.
func told(t *testing.T, status byte) (said []string, running *daemon, want, log string) {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		const why = "only root may give a daemon its configuration"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	before := specs()["ospf-bfd"]
	after := before
	after.VIPs = append(slices.Clone(before.VIPs), netip.MustParseAddr("203.0.113.11"))
	var text bytes.Buffer
	s := New(Config{Log: slog.New(slog.NewTextHandler(&text, nil)), Run: t.TempDir(), User: me.Username})
	running = &daemon{name: "ospfd", file: Render(before)["ospfd"], cfg: s.cfg}
	running.alive.Store(true)
	s.running["ospfd"] = running
	v := &terminal{}
	v.listen(t, filepath.Join(s.cfg.Run, "ospfd.vty"), status)
	if err := s.retell(context.Background(), Render(after)); err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.said, running, Render(after)["ospfd"], text.String()
}

// MetalLB 2049: a reload of FRR flaps sessions. A VIP that comes is one line that the running daemon is told.
func TestComplaintAReloadFlapsSessions(t *testing.T) {
	said, running, want, log := told(t, 0)
	if got := strings.Join(said, "; "); got != "enable; configure terminal; ip prefix-list bladenet-vips4 seq 3405803787 permit 203.0.113.11/32; end" {
		t.Errorf("ospfd was told %q", got)
	}
	if running.file != want {
		t.Errorf("ospfd counts as one with an older configuration, and is restarted:\n%s", log)
	}
}

// MetalLB 1046: nobody sees that a reload of FRR has failed. What is refused is logged with the daemon's answer, and the daemon keeps counting as
// one with its older configuration, which has it restarted with the new one.
func TestComplaintAFailedReloadIsInvisible(t *testing.T) {
	_, running, want, log := told(t, 13)
	if running.file == want {
		t.Error("ospfd refused its new VIP and counts as one that took it")
	}
	if !strings.Contains(log, "restart a routing daemon") || !strings.Contains(log, "daemon=ospfd") || !strings.Contains(log, "status 13") {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
}

// MetalLB 1888: with VIPs of both families, prefix lists of one hold addresses of the other, or permit everything.
func TestComplaintDualStackPrefixListsAreWrong(t *testing.T) {
	for name, s := range specs() {
		for daemon, file := range Render(s) {
			permits := map[string][]string{}
			for line := range strings.Lines(file) {
				if f := strings.Fields(line); len(f) > 6 && f[1] == "prefix-list" && f[5] == "permit" {
					permits[f[0]] = append(permits[f[0]], f[6])
				}
			}
			for family, ipv6 := range map[string]bool{"ip": false, "ipv6": true} {
				var want []string
				for _, a := range byFamily(s.VIPs, ipv6) {
					want = append(want, netip.PrefixFrom(a, a.BitLen()).String())
				}
				if got := permits[family]; strings.Contains(file, "redistribute connected") && strings.Contains(file, family+" prefix-list") && !slices.Equal(got, want) {
					t.Errorf("%s: %s permits %v in %s, want %v", name, daemon, got, family, want)
				}
			}
		}
	}
}
