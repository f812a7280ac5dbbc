package announce

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// stat is what is read of a process in /proc/PID/stat (proc(5)).
type stat struct {
	state byte
	group int
}

// readStat reads it. The second field may hold anything, brackets and spaces too.
func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(text)
}

func parseStat(text []byte) (stat, error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 3 {
		return stat{}, fmt.Errorf("read state of process: %.40q", text)
	}
	group, err := strconv.Atoi(string(fields[2]))
	return stat{state: fields[0][0], group: group}, err
}

// processes lists the processes that match.
func processes(match func(pid int) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && match(pid) {
			out = append(out, pid)
		}
	}
	return out
}

// takes says whether a process takes a signal in some way, by the masks in /proc/PID/status (proc(5)): it has a handler, or has blocked the
// signal and reads it from a descriptor (signalfd(2)).
func takes(pid int, signal syscall.Signal) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	var taken uint64
	for _, name := range []string{"SigBlk", "SigCgt"} {
		_, rest, _ := strings.Cut(string(text), "\n"+name+":")
		line, _, _ := strings.Cut(rest, "\n")
		mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
		if err != nil {
			return false
		}
		taken |= mask
	}
	return taken&(1<<(signal-1)) != 0
}
