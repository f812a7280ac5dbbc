package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// How much of a console stands in an error: a trace of a dying kernel as a whole, of anything else the end.
const (
	traceLines = 150
	tailLines  = 30
)

// trouble begins what a Linux kernel says before it panics, or instead (arch/x86/kernel/dumpstack.c, kernel/panic.c, mm/oom_kill.c).
var trouble = regexp.MustCompile(`BUG: |Oops: |general protection fault|invalid opcode: |double fault: |stack segment: |cut here|invoked oom-killer|self-detected stall|detected stalls|blocked for more than`)

// fromPanic returns the kernel's last words from the first line of what led to them; false when there was no panic.
func fromPanic(console string) (string, bool) {
	lines := strings.Split(console, "\n")
	end := -1
	for i, line := range lines {
		if strings.Contains(line, "Kernel panic") {
			end = i
		}
	}
	if end < 0 {
		return "", false
	}
	begin := end
	for i := end; i >= 0 && end-i < traceLines; i-- {
		if trouble.MatchString(lines[i]) {
			begin = i
		}
	}
	return strings.TrimSpace(strings.Join(lines[begin:min(len(lines), begin+2*traceLines)], "\n")), true
}

// tail is the end of one of the lab's logs; of a console on which a kernel died, all that it said of that.
func (l *Lab) tail(log string) string {
	data, _ := os.ReadFile(l.path(log))
	if text, ok := fromPanic(string(data)); ok {
		return text
	}
	return lastLines(string(data), tailLines)
}

// keepConsole puts the console of a machine that ended unasked where Down leaves it: beside the state folder.
func (l *Lab) keepConsole(when time.Time) error {
	name := fmt.Sprintf("%s-%s.console", l.Name, when.UTC().Format("20060102T150405Z"))
	if err := os.Link(l.path(fileConsole), filepath.Join(Folder(), name)); err != nil {
		return fmt.Errorf("keep console: %w", err)
	}
	return nil
}

// consoles lists what keepConsole has kept of a lab, the newest last.
func consoles(name string) []string {
	list, _ := filepath.Glob(filepath.Join(Folder(), name+"-????????T??????Z.console"))
	return list
}
