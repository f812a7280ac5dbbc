package guest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cloneNewNet = unix.CLONE_NEWNET

// place is where a command runs: namespaces that a thread enters, and for a container a program that enters all of them.
type place struct {
	spaces []space
	prefix []string // words before the command
}

// space is a file that holds a namespace.
type space struct {
	path string
	kind int // CLONE_NEW*
}

// Words that mean a place in a request besides names.
const (
	wordBlade   = "blade"   // the first blade
	wordMachine = "machine" // the machine that the blades share; with one blade the blade itself
	wordNet     = "net:"    // prefix: only the guest's network, with the machine's programs
)

// findPlace finds what a request calls In: a blade, the router, the client, the machine, a container, or a guest's network.
// blade is the blade that is meant when none is named.
func findPlace(name, blade string) (place, error) {
	if name == wordMachine {
		return place{}, nil
	}
	if name == "" || name == wordBlade {
		name = blade
	}
	name, netOnly := strings.CutPrefix(name, wordNet)
	if name != filepath.Base(name) || name == "." || name == ".." {
		return place{}, fmt.Errorf("enter %q: not a name", name)
	}
	if p, ok := labSpace(name); ok {
		return p, nil
	}
	if name == blade {
		return place{}, nil
	}
	pid, err := containerInit(name)
	switch {
	case err != nil:
		return place{}, fmt.Errorf("enter %s: %w", name, err)
	case pid != 0 && netOnly:
		return place{spaces: []space{{fmt.Sprintf("/proc/%d/ns/net", pid), unix.CLONE_NEWNET}}}, nil
	case pid != 0:
		return place{prefix: []string{"/usr/bin/nsenter", "-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"}}, nil
	}
	if p, ok := guestSpace(name); ok {
		return p, nil
	}
	return place{}, fmt.Errorf("enter %s: no blade, container or namespace of that name; there are %s", name, strings.Join(names(), ", "))
}

// labSpace is a blade among several, the router or the client.
func labSpace(name string) (place, bool) {
	base := filepath.Join(Spaces, name)
	if _, err := os.Stat(base + ".mnt"); err != nil {
		return place{}, false
	}
	// The mounts come last: they may not show the others' files.
	return place{spaces: []space{
		{base + ".uts", unix.CLONE_NEWUTS}, {filepath.Join(netSpaces, name), unix.CLONE_NEWNET}, {base + ".mnt", unix.CLONE_NEWNS},
	}}, true
}

// guestSpace is a network namespace that a blade's agent keeps for a guest, or one that somebody made with ip netns.
func guestSpace(name string) (place, bool) {
	for _, dir := range []string{guestNets, netSpaces} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return place{spaces: []space{{path, unix.CLONE_NEWNET}}}, true
		}
	}
	// Of several blades each has its own folder, and only its own mounts show the namespace there.
	mountPoints, _ := filepath.Glob(filepath.Join(Blades, "*", guestNets, name))
	if len(mountPoints) == 0 {
		return place{}, false
	}
	blade, _, _ := strings.Cut(strings.TrimPrefix(mountPoints[0], Blades+"/"), "/")
	p, ok := labSpace(blade)
	p.spaces = append(p.spaces, space{filepath.Join(guestNets, name), unix.CLONE_NEWNET})
	return p, ok
}

// containerInit finds the first process of a container by its cgroup, whatever folder the container lies in. 0 means none.
func containerInit(name string) (int, error) {
	pid := 0
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup that vanishes while we look is none
		}
		if d.Name() != "lxc.payload."+name {
			return nil
		}
		pid = firstProcess(path)
		if pid != 0 {
			return fs.SkipAll
		}
		return fs.SkipDir
	})
	return pid, err
}

// firstProcess is the process below a cgroup that has number 1 in its own pid namespace.
func firstProcess(cgroup string) int {
	first := 0
	_ = filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // as above
		}
		pids, _ := os.ReadFile(path)
		for word := range strings.FieldsSeq(string(pids)) {
			pid, err := strconv.Atoi(word)
			if err == nil && isInit(pid) {
				first = pid
				return fs.SkipAll
			}
		}
		return nil
	})
	return first
}

func isInit(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(ids)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// names lists what findPlace can find, without containers.
func names() []string {
	list := []string{wordBlade, wordMachine}
	for _, pattern := range []string{netSpaces + "/*", guestNets + "/*", Blades + "/*" + guestNets + "/*"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if name := filepath.Base(path); name != control {
				list = append(list, name)
			}
		}
	}
	return list
}

// enter moves the calling thread, which must be locked and never used again, into the place's namespaces, one after another.
func (p place) enter() error {
	for _, s := range p.spaces {
		if err := s.enter(); err != nil {
			return fmt.Errorf("enter namespace %s: %w", s.path, err)
		}
	}
	return nil
}

func (s space) enter() error {
	fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if s.kind == unix.CLONE_NEWNS {
		// A thread that shares its working folder with others may not change its mounts.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare working folder: %w", err)
		}
	}
	return unix.Setns(fd, s.kind)
}

func enterFile(path string, kind int) error {
	return space{path, kind}.enter()
}
