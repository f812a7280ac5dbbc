package lxc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// guestsGroup holds the groups of all containers.
const guestsGroup = cgroupRoot + "/bladenet/guest"

// leaveShare bounds what all containers together may take, whatever each may: without it enough of them could leave the blade itself without
// memory, or without numbers for its processes. Processors need no bound: to the kernel all of them together are one beside the blade's own
// services. A controller that the blade does not have bounds nothing.
func leaveShare() error {
	if err := os.MkdirAll(guestsGroup, 0o755); err != nil {
		return fmt.Errorf("make the containers' control group: %w", err)
	}
	for _, dir := range []string{cgroupRoot, filepath.Dir(guestsGroup)} { // a group has only what the one above gives it
		if err := enable(dir, "memory", "pids"); err != nil {
			return err
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("read the blade's memory: %w", err)
	}
	tasks, err := mostTasks()
	if err != nil {
		return err
	}
	for file, value := range map[string]int64{
		"memory.max": memoryShare(int64(info.Totalram) * int64(info.Unit)),
		"pids.max":   tasks / 4 * 3,
	} {
		err := setFile(filepath.Join(guestsGroup, file), strconv.FormatInt(value, 10))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("bound the containers: %w", err)
		}
	}
	return nil
}

// memoryShare is how much of a blade's memory its containers may have: all but a tenth, at least half a gigabyte of a blade that has two.
func memoryShare(total int64) int64 {
	return total - max(total/10, min(512<<20, total/4))
}

// mostTasks is how many processes and threads the kernel has numbers and room for.
func mostTasks() (int64, error) {
	least := int64(0)
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		if least == 0 || n < least {
			least = n
		}
	}
	return least, nil
}

// enable gives the groups below one the controllers that it has itself.
func enable(dir string, controllers ...string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(string(have)), c) || slices.Contains(strings.Fields(string(on)), c) {
			continue
		}
		if err := setFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+c); err != nil {
			return fmt.Errorf("give controllers to the groups below %s: %w", dir, err)
		}
	}
	return nil
}

// setFile writes a value into a file of the hierarchy. It must not be made: the hierarchy would refuse that, and not say that there is none.
func setFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
