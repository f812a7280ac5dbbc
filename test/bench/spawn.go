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
	"strconv"
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

// spawner is a blade under a bladed of its own, in the lab. One real server stands already: the first of a blade is a rare one.
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
	err = errors.Join(os.Chmod(dir, 0o755), os.CopyFS(filepath.Join(dir, "policy"), os.DirFS(spawnFleet)), os.Mkdir(s.images(), 0o755), s.takePrograms())
	if err == nil {
		s.image, err = s.takeImage("web", policy.DriverLXC)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.daemon = exec.Command(s.program("bladed"), s.flags()...)
	if err := s.daemon.Start(); err != nil {
		s.daemon = nil
		return nil, errors.Join(err, s.Close())
	}
	go func() { s.ended <- s.daemon.Wait() }()
	client := api.NewClient(s.socket())
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		status, err := client.Status(ctx)
		if err == nil && status.Converged {
			break
		}
		if time.Since(begin) > answerLimit || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("bladed is not at rest: %v: %w", status.Waiting, err), s.Close())
		}
	}
	if err := s.spawn("standing"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// takePrograms copies ours onto the lab's own disk, where the peers' lie: what the lab shows of the host is read anew at each start.
func (s *spawner) takePrograms() error {
	for _, name := range []string{"bladed", "bladectl"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if _, err := command("", "cp", path, s.program(name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *spawner) program(name string) string { return filepath.Join(s.dir, name) }

// signal tells bladed something.
func (s *spawner) signal(sig unix.Signal) error { return s.daemon.Process.Signal(sig) }

// rest waits until bladed has used no time for a while, so that what one subject left it to look at is not done while another is measured.
func (s *spawner) rest() error {
	const quiet, limit = 500 * time.Millisecond, 30 * time.Second
	begin := time.Now()
	for last, since := uint64(0), begin; time.Since(since) < quiet && time.Since(begin) < limit; time.Sleep(quiet / 10) {
		now, err := ticks(s.daemon.Process.Pid)
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		}
	}
	return nil
}

// ticks is the processor time that a process has used (proc_pid_stat(5), utime and stime).
func ticks(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: %q has no times", pid, text)
	}
	user, err1 := strconv.ParseUint(fields[11], 10, 64)
	system, err2 := strconv.ParseUint(fields[12], 10, 64)
	return user + system, errors.Join(err1, err2)
}

// takeImage copies an image onto the lab's own disk: what the lab shows of the host cannot be mounted with other owners, as unprivileged
// containers need.
func (s *spawner) takeImage(name string, driver policy.Driver) (image.Image, error) {
	have, err := (image.Store{Dir: spawnImages}).Latest(name, driver)
	if err != nil {
		return image.Image{}, err
	}
	store := image.Store{Dir: s.images()}
	if _, err := command("", "cp", "-a", "--sparse=always", have.Dir(), store.Dir); err != nil {
		return image.Image{}, err
	}
	return store.Get(have.ID)
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
		errs = append(errs, s.signal(unix.SIGTERM), <-s.ended)
		_, err := command("", s.program("bladed"), append(s.flags(), "--dismantle")...)
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
	_, err := command("", s.program("bladectl"), append(args, "--socket", s.socket())...)
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

// oneServer is S1: one real server from nothing until it answers, each kind beside its own kind.
func oneServer(ctx context.Context, o options) (rows []result.Row, err error) {
	s, err := newSpawner(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := command(plainTable, "nft", "-f", "-"); err != nil {
		return nil, err
	}
	defer func() {
		_, gone := command("", "nft", "delete", "table", "bridge", "plain")
		err = errors.Join(err, gone)
	}()
	kinds := []struct {
		id, what, peer, note string
		flags                []string
		unprivileged         bool
	}{
		{
			"S1", "real server in a privileged container: cloned, started, provisioned, answering", "lxc-copy -B overlay, lxc-start, ip, bridge, sysctl, nft",
			"both privileged; ours also checks and writes the policy and a revision",
			[]string{"--privileged"},
			false,
		},
		{
			"S1.unprivileged", "real server in an unprivileged container, as spawned by default", "the same tools, lxc.idmap over files with shifted owners",
			"the peer's image was copied and given other owners beforehand, and its containers share their ids; each of ours has ids of its own", nil, true,
		},
	}
	for _, k := range kinds {
		p, err := newPlain(filepath.Join(s.dir, k.id), s.image, k.unprivileged)
		if err != nil {
			return rows, err
		}
		series, err := result.Interleave(o.rounds, s.ours(k.flags...), s.alone(until("plain", p.make, p.end)))
		if err != nil {
			return rows, err
		}
		row := result.Compare(k.id, k.what, k.peer, "ms", series["ours"], series["plain"])
		rows = append(rows, row.Judged(result.AtMost, 1.3).Noted(k.note))
	}
	return rows, nil
}

// ours is one real server by spawn.
func (s *spawner) ours(flags ...string) result.Subject {
	const name = "ours-1"
	return until("ours", func() error {
		if err := s.spawn(name, flags...); err != nil {
			return err
		}
		return answers(policy.NamespacePath(name))
	}, func() error { return errors.Join(s.destroy(name), s.rest()) })
}

// alone is a subject of the plain tools. Whoever uses them has no bladed: ours does not run meanwhile.
func (s *spawner) alone(subject result.Subject) result.Subject {
	measure := subject.Measure
	subject.Measure = func() (took float64, err error) {
		if err := s.signal(unix.SIGSTOP); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, s.signal(unix.SIGCONT), s.rest()) }()
		return measure()
	}
	return subject
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
	away := func() error { return errors.Join(s.destroy(names...), s.rest()) }
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
