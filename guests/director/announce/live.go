package announce

import (
	"context"
	"slices"
	"strings"
)

// liveChange returns the commands that turn a daemon with configuration before into one with configuration after, and false if
// only a restart can. A restart costs every adjacency, and with them every VIP, for seconds; and a new VIP reaches all directors
// at once. So lines of the VIPs' prefix lists are told to the running daemon: new ones first, then those that go.
func liveChange(before, after string) ([]string, bool) {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	var added, gone []string
	for _, line := range now {
		if !slices.Contains(old, line) {
			added = append(added, line)
		}
	}
	for _, line := range old {
		if !slices.Contains(now, line) {
			gone = append(gone, "no "+line)
		}
	}
	for _, line := range slices.Concat(added, gone) {
		if !strings.Contains(line, " prefix-list ") || !strings.Contains(line, " permit ") {
			return nil, false
		}
	}
	commands := slices.Concat([]string{"enable", "configure terminal"}, added, gone)
	return append(commands, "end"), true
}

// retell tells the daemons whose configuration changed by VIPs only of their new one.
func (s *Supervisor) retell(ctx context.Context, files map[string]string) error {
	for name, d := range s.running {
		after, wanted := files[name]
		if !wanted || after == d.file || !d.alive.Load() {
			continue
		}
		if err := d.program().retell(ctx, after); err != nil {
			return err
		}
	}
	return nil
}
