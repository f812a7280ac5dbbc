package guest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// findPlace finds what a request calls In: the blade, a namespace of the lab, a container or a guest's network namespace.
func findPlace(name string) (place, error) {
	if name == "" || name == "blade" {
		return place{}, nil
	}
	if name != filepath.Base(name) || name == "." || name == ".." {
		return place{}, fmt.Errorf("enter %q: not a name", name)
	}
	if p, ok := labSpace(name); ok {
		return p, nil
	}
	pid, err := containerInit(name)
	if err != nil {
		return place{}, fmt.Errorf("enter %s: %w", name, err)
	}
	if pid != 0 {
		return place{prefix: []string{"/usr/bin/nsenter", "-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"}}, nil
	}
	if p, ok := guestSpace(name); ok {
		return p, nil
	}
	return place{}, fmt.Errorf("enter %s: no blade, container or namespace of that name; there are %s", name, strings.Join(names(), ", "))
}

// labSpace is a blade, the router or the client.
func labSpace(name string) (place, bool) {
	base := filepath.Join(Spaces, name)
	if _, err := os.Stat(base + ".mnt"); err != nil {
		return place{}, false
	}
	p := place{spaces: []space{{filepath.Join(netSpaces, name), unix.CLONE_NEWNET}, {base + ".mnt", unix.CLONE_NEWNS}}}
	if _, err := os.Stat(base + ".uts"); err == nil {
		p.spaces = slices.Insert(p.spaces, 0, space{base + ".uts", unix.CLONE_NEWUTS})
	}
	return p, true
}

// guestSpace is a network namespace that the host agent of the blade keeps, or one that somebody made with ip netns.
func guestSpace(name string) (place, bool) {
	for _, dir := range []string{guestNets, netSpaces} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return place{spaces: []space{{path, unix.CLONE_NEWNET}}}, true
		}
	}
	return place{}, false
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
	list := []string{"blade"}
	for _, dir := range []string{netSpaces, guestNets} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Name() != control {
				list = append(list, e.Name())
			}
		}
	}
	return list
}

// enter moves the calling thread, which must be locked and never used again, into the place's namespaces.
func (p place) enter() error {
	// The namespaces' files are opened first: the mount namespace may not show them.
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, s := range p.spaces {
		fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", s.path, err)
		}
		fds = append(fds, fd)
	}
	for i, s := range p.spaces {
		if s.kind == unix.CLONE_NEWNS {
			// A thread that shares its working folder with others may not change its mounts.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare working folder: %w", err)
			}
		}
		if err := unix.Setns(fds[i], s.kind); err != nil {
			return fmt.Errorf("enter namespace %s: %w", s.path, err)
		}
	}
	return nil
}

func enterFile(path string, kind int) error {
	return place{spaces: []space{{path, kind}}}.enter()
}
