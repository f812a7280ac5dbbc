package announce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/inside"
)

// vrrp is keepalived. It is two processes: one that does the work, and its parent, which passes signals on. It runs no checks, no scripts and,
// since each VIP is its own, no groups.
type vrrp struct{ *daemon }

func (d vrrp) dir() string { return d.cfg.Pair }

func (d vrrp) evict() error {
	d.clear()
	return nil
}

func (d vrrp) begin(context.Context) (end func()) { return d.clear }

// command keeps it in the foreground, with nothing but VRRP, and lets it end when its child does.
func (d vrrp) command() (path string, args []string) {
	return d.cfg.Keepalived, []string{
		"--dont-fork", "--vrrp", "--dont-respawn", "--log-console", "--no-syslog",
		"--use-file=" + d.path(".conf"), "--pid=" + d.path(".pid"), "--vrrp_pid=" + d.path("-vrrp.pid"),
	}
}

// chatter is what a daemon says at each start, and of each advertisement until it is the master, with no other means to keep it from that.
func (d *daemon) chatter() []string {
	if d.name != keepalived {
		return nil
	}
	return []string{
		": Starting ", ": Running on ", ": Command line: ", "'--", ": Configuration file ", ": NOTICE: setting config option ", ": Startup complete",
		"the first IPv6 VIP address should be link local", "Remove a zombie pid file", "received lower priority",
	}
}

// tellVIPs writes for each VIP whether the director may have it, for a daemon that runs and for one that is about to. A daemon whose file is
// missing would take a VIP for its own, so that the files come before it.
func (c Config) tellVIPs(spec Spec, loopback []netip.Addr) error {
	if spec.Announce.VRRP == nil {
		return nil
	}
	if err := prepareDir(c.Pair, owner{}); err != nil {
		return err
	}
	for vip, ready := range spec.Ready(loopback) {
		word := mayNotHave
		if ready {
			word = mayHave
		}
		path := filepath.Join(c.Pair, vip.String())
		if have, err := os.ReadFile(path); err == nil && string(have) == word {
			continue
		}
		if err := os.WriteFile(path, []byte(word), 0o644); err != nil {
			return fmt.Errorf("tell VRRP of a VIP: %w", err)
		}
		c.Log.Info("tell VRRP of a VIP", "vip", vip, "ready", ready)
	}
	return nil
}

// retell has it read another configuration. What is in both stays as it is.
func (d vrrp) retell(_ context.Context, after string) error {
	if err := writeOwned(d.path(".conf"), after, owner{}); err != nil {
		return err
	}
	d.file = after
	pid := pidIn(d.path(".pid"))
	if !slices.Contains(d.processes(), pid) {
		return errors.New("reload VRRP's daemon: it has just ended")
	}
	if err := unix.Kill(pid, unix.SIGHUP); err != nil {
		return err
	}
	d.cfg.Log.Info("told a routing daemon its VIPs", "daemon", d.name)
	return nil
}

// child is the process that does the work; 0: it does not run yet.
func (d vrrp) child() int { return pidIn(d.path("-vrrp.pid")) }

func (d vrrp) workers() []int {
	if child := d.child(); child > 0 {
		return []int{child}
	}
	return nil
}

func pidIn(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// processes lists the daemon's, by what they were started with.
func (d vrrp) processes() []int {
	file := "--use-file=" + d.path(".conf")
	return processes(func(pid int) bool {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && slices.Contains(strings.Split(string(args), "\x00"), file)
	})
}

// clear ends what is left of a daemon, of this supervisor or one before it, and takes its VIPs away: one that was killed leaves them,
// and the kernel would go on answering for them.
func (d vrrp) clear() {
	for range int(dropTimeout / lookDump) {
		left := d.processes()
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(lookDump)
	}
	_ = os.Remove(d.path(".pid")) // the next one would take them for those of one that runs
	_ = os.Remove(d.path("-vrrp.pid"))
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	if err := inside.DropFloating(ctx, ""); err != nil {
		d.cfg.Log.Error("take VIPs off eth0", "err", err)
	}
}

// dropTimeout bounds how long that may take.
const dropTimeout = 5 * time.Second

// answers says whether it gives a sign of life: it is asked for its statistics, which it writes into a file (keepalived(8), SIGUSR2). Its
// parent passes the question on, so that an answer takes both. Before it is ready for the question, which would end it, it gives none.
func (d vrrp) answers(ctx context.Context, pid int) bool {
	path := d.path(".stats")
	_ = os.Remove(path)
	if !takes(pid, unix.SIGUSR2) || !takes(d.child(), unix.SIGUSR2) {
		return false
	}
	if err := unix.Kill(pid, unix.SIGUSR2); err != nil {
		return false
	}
	for range int(vtyTimeout / lookDump) {
		if _, err := os.Stat(path); err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return true // nobody waits for the answer
		case <-time.After(lookDump):
		}
	}
	return false
}

// lookDump is how often the daemon's answer is looked for.
const lookDump = 50 * time.Millisecond
