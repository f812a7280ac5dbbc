package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process identifies a process over the reuse of its number.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, field 22 of /proc/PID/stat (proc(5))
}

// identify reads who has a process number now.
func identify(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	start, err := parseStart(string(stat))
	if err != nil {
		return process{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return process{pid, start}, nil
}

// parseStart takes the start time out of a line of /proc/PID/stat. The program's name, in parentheses, may hold anything.
func parseStart(stat string) (uint64, error) {
	rest := stat[strings.LastIndexByte(stat, ')')+1:]
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("parse stat: %d fields after the name, want 20", len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// alive says whether the process still runs: the same one, not a later owner of its number. A zombie does not run.
func (p process) alive() bool {
	now, err := identify(p.PID)
	return p.PID > 0 && err == nil && now == p && !zombie(p.PID)
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	rest := stat[strings.LastIndexByte(string(stat), ')')+1:]
	return strings.HasPrefix(string(rest), " Z")
}

// end asks the process to end, kills it after the grace, and returns when it is gone. It never signals anybody else.
func (p process) end(grace time.Duration) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !p.alive() {
			return nil
		}
		if err := syscall.Kill(p.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", p.PID, err)
		}
		for limit := time.Now().Add(grace); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
			if !p.alive() {
				return nil
			}
		}
	}
	return fmt.Errorf("end process %d: still there after SIGKILL", p.PID)
}
