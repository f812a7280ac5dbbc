package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/bench/result"
)

// What the spawned servers are: one container of the demo's fleet, which answers on this VIP and port.
const (
	spawnFleet  = labSources + "/test/fleets/one-blade"
	spawnImages = "/lab/images"
	spawnVIP    = "203.0.113.10:80"
	answerLimit = time.Minute
)

// spawner is a blade under a bladed of its own, in the lab, and a folder for the plain tools' containers.
type spawner struct {
	dir    string
	image  image.Image
	daemon *exec.Cmd
	ended  chan error
}

// newSpawner starts bladed on the lab's blade and waits until it is at rest.
func newSpawner(ctx context.Context) (*spawner, error) {
	dir, err := os.MkdirTemp("/var/tmp", "bench")
	if err != nil {
		return nil, err
	}
	s := &spawner{dir: dir, ended: make(chan error, 1)}
	err = errors.Join(os.Chmod(dir, 0o755), os.CopyFS(filepath.Join(dir, "policy"), os.DirFS(spawnFleet)), s.takeImage())
	if err == nil {
		err = s.plainBase()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.daemon = exec.Command("bladed", s.flags()...)
	if err := s.daemon.Start(); err != nil {
		s.daemon = nil
		return nil, errors.Join(err, s.Close())
	}
	go func() { s.ended <- s.daemon.Wait() }()
	client := api.NewClient(s.socket())
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		status, err := client.Status(ctx)
		if err == nil && status.Converged {
			return s, nil
		}
		if time.Since(begin) > answerLimit || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("bladed is not at rest: %v: %w", status.Waiting, err), s.Close())
		}
	}
}

// takeImage copies the image onto the lab's own disk: what the lab shows of the host cannot be mounted with other owners, as unprivileged
// containers need.
func (s *spawner) takeImage() error {
	have, err := (image.Store{Dir: spawnImages}).Latest("web", policy.DriverLXC)
	if err != nil {
		return err
	}
	store := image.Store{Dir: s.images()}
	if err := os.Mkdir(store.Dir, 0o755); err != nil {
		return err
	}
	if _, err := command("", "cp", "-a", have.Dir(), store.Dir); err != nil {
		return err
	}
	s.image, err = store.Get(have.ID)
	return err
}

func (s *spawner) images() string { return filepath.Join(s.dir, "images") }

func (s *spawner) socket() string { return filepath.Join(s.dir, "socket") }

func (s *spawner) flags() []string {
	return []string{
		"--blade", "lame-l1", "--policy", filepath.Join(s.dir, "policy"), "--state", filepath.Join(s.dir, "state"), "--images", s.images(),
		"--socket", s.socket(),
	}
}

// Close ends bladed, takes the blade down and removes the folder.
func (s *spawner) Close() error {
	var errs []error
	if s.daemon != nil {
		errs = append(errs, s.daemon.Process.Signal(unix.SIGTERM), <-s.ended)
		_, err := command("", "bladed", append(s.flags(), "--dismantle")...)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// command runs a program to its end.
func command(stdin, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// ctl runs bladectl as an operator does.
func (s *spawner) ctl(args ...string) error {
	_, err := command("", "bladectl", append(args, "--socket", s.socket())...)
	return err
}

func (s *spawner) spawn(name string, more ...string) error {
	return s.ctl(append([]string{"spawn", "realserver", name, "--service", "www", "--image", "web"}, more...)...)
}

// destroy takes guests away without draining them.
func (s *spawner) destroy(names ...string) error {
	return s.ctl(append(append([]string{"destroy"}, names...), "--drain", "0s")...)
}

// answers waits until the server in a namespace takes a connection to the VIP.
func answers(path string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never given back: the thread ends with the goroutine
		h, err := netns.GetFromPath(path)
		if err == nil {
			err = errors.Join(netns.Set(h), h.Close())
		}
		if err != nil {
			result <- err
			return
		}
		for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
			conn, err := net.DialTimeout("tcp4", spawnVIP, time.Second)
			if err == nil {
				result <- conn.Close()
				return
			}
			if time.Since(begin) > answerLimit {
				result <- err
				return
			}
		}
	}()
	return <-result
}

// plainBase is the container that lxc-copy clones: the image's files, with what a web server needs to be in the configuration.
func (s *spawner) plainBase() error {
	base := filepath.Join(s.dir, "plain", s.image.ID) // lxc-copy wants the original's name in the path of its files
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	config := "lxc.uts.name = base\nlxc.rootfs.path = dir:" + s.image.Rootfs() + "\nlxc.namespace.share.net = /run/netns/plain-1\n" +
		"lxc.init.cmd = " + strings.Join(s.image.Command, " ") + "\nlxc.apparmor.profile = unconfined\nlxc.autodev = 1\nlxc.tty.max = 0\n" +
		"lxc.mount.auto = proc:mixed sys:ro\nlxc.cgroup2.memory.max = 64M\nlxc.cgroup2.pids.max = 1024\n"
	return os.WriteFile(filepath.Join(base, "config"), []byte(config), 0o600)
}

// What a careful administrator types for one real server: namespace, links on the blade's bridges, sysctls, addresses, VIPs, routes.
const (
	plainOutside = `netns add plain-1
link add plain-1.0 type veth peer name eth0 netns plain-1
link add plain-1.1 type veth peer name eth1 netns plain-1
link set plain-1.0 master br130 up
link set plain-1.1 master br120 up
`
	plainInside = `link set lo up
link set eth0 up
link set eth1 up
addr add 198.51.100.99/25 dev eth0
addr add 2001:db8:130::99/64 dev eth0 nodad
addr add 10.12.3.99/22 dev eth1
addr add 2001:db8:120::99/64 dev eth1 nodad
addr add 203.0.113.10/32 dev lo
addr add 2001:db8:5::10/128 dev lo nodad
route add default via 198.51.100.1
route add ::/0 via 2001:db8:130::1
`
)

// plain makes the same server by the plain tools, until it answers.
func (s *spawner) plain() error {
	plain := filepath.Join(s.dir, "plain")
	sysctls := []string{"net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2", "net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0"}
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{plainOutside, []string{"ip", "-batch", "-"}},
		{"", append([]string{"ip", "netns", "exec", "plain-1", "sysctl", "-q", "-w"}, sysctls...)},
		{plainInside, []string{"ip", "-n", "plain-1", "-batch", "-"}},
		{"", []string{"lxc-copy", "-P", plain, "-p", plain, "-n", s.image.ID, "-N", "plain-1", "-s", "-B", "overlay"}},
		{"", []string{"lxc-start", "-P", plain, "-n", "plain-1"}},
	} {
		if _, err := command(c.stdin, c.args[0], c.args[1:]...); err != nil {
			return err
		}
	}
	return answers("/run/netns/plain-1")
}

func (s *spawner) plainEnd() error {
	plain := filepath.Join(s.dir, "plain")
	for _, args := range [][]string{
		{"lxc-stop", "-P", plain, "-n", "plain-1", "-k"},
		{"lxc-destroy", "-P", plain, "-n", "plain-1"},
		{"ip", "link", "del", "plain-1.0"},
		{"ip", "link", "del", "plain-1.1"},
		{"ip", "netns", "del", "plain-1"},
	} {
		if _, err := command("", args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// until makes a subject of something whose wall time counts, in milliseconds, and is taken away afterwards.
func until(name string, do, away func() error) result.Subject {
	return result.Subject{Name: name, Measure: func() (float64, error) {
		begin := time.Now()
		err := do()
		took := time.Since(begin)
		if err != nil {
			return 0, err
		}
		return float64(took) / 1e6, away()
	}}
}

// oneServer is S1: one real server from nothing until it answers.
func oneServer(ctx context.Context, o options) (rows []result.Row, err error) {
	s, err := newSpawner(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	const name = "ours-1"
	series, err := result.Interleave(
		o.rounds,
		until("ours", func() error {
			if err := s.spawn(name); err != nil {
				return err
			}
			return answers(policy.NamespacePath(name))
		}, func() error { return s.destroy(name) }),
		until("plain", s.plain, s.plainEnd),
	)
	if err != nil {
		return nil, err
	}
	row := result.Compare("S1", "real server in a container: cloned, started, provisioned, answering", "lxc-copy -B overlay, lxc-start, ip, sysctl", "ms",
		series["ours"], series["plain"])
	return []result.Row{row.Judged(result.AtMost, 1.3).Noted("ours also writes the policy, a revision and the filter's rules")}, nil
}

// manyServers is S2: fifty real servers in one command and in a loop.
func manyServers(ctx context.Context, o options) (rows []result.Row, err error) {
	const count = 50
	s, err := newSpawner(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("many-%d", i+1))
	}
	away := func() error { return s.destroy(names...) }
	series, err := result.Interleave(
		min(o.rounds, 3),
		until("count", func() error { return s.spawn("many", "--count", fmt.Sprint(count)) }, away),
		until("loop", func() error {
			for _, name := range names {
				if err := s.spawn(name); err != nil {
					return err
				}
			}
			return nil
		}, away),
	)
	if err != nil {
		return nil, err
	}
	row := result.Compare("S2", fmt.Sprintf("%d real servers by spawn --count", count), "one spawn after the other", "ms", series["count"], series["loop"])
	return []result.Row{row.Judged(result.AtMost, 0.5).Noted("few rounds: one takes minutes")}, nil
}
