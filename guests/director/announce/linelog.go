package announce

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Bounds of what a daemon may say: bytes of a line, and lines in a period.
const (
	maxLine    = 240
	maxLines   = 20
	linePeriod = time.Minute
)

// lineLog turns a daemon's output into log lines, not too long and not too many.
type lineLog struct {
	log    *slog.Logger
	daemon string
	skip   []string // what is in a line that is of no use

	part  []byte
	count int
	until time.Time
}

func (l *lineLog) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		l.part = append(l.part, line[:min(len(line), maxLine-len(l.part))]...)
		if whole {
			l.say(string(bytes.TrimSpace(l.part)))
			l.part = l.part[:0]
		}
		rest = after
	}
	return len(p), nil
}

func (l *lineLog) say(line string) {
	if line == "" || slices.ContainsFunc(l.skip, func(s string) bool { return strings.Contains(line, s) }) {
		return
	}
	now := time.Now()
	if now.After(l.until) {
		l.count, l.until = 0, now.Add(linePeriod)
	}
	l.count++
	switch {
	case l.count < maxLines:
		l.log.Warn("routing daemon says", "daemon", l.daemon, "line", line)
	case l.count == maxLines:
		l.log.Warn("routing daemon says too much; the rest of a minute is dropped", "daemon", l.daemon)
	}
}
