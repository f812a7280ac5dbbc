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

// retell tells the daemons whose configuration changed by VIPs only of their new one. A daemon that does not take it is left as
// it is, to be restarted by who compares configurations next.
func (s *Supervisor) retell(ctx context.Context, files map[string]string) error {
	for name, d := range s.running {
		after, wanted := files[name]
		if !wanted || after == d.file || !d.alive.Load() {
			continue
		}
		if name == keepalived {
			if err := d.reload(after); err != nil {
				return err
			}
			s.cfg.Log.Info("told a routing daemon its VIPs", "daemon", name)
			continue
		}
		commands, ok := liveChange(d.file, after)
		if !ok {
			continue
		}
		if err := tell(ctx, d.path(".vty"), commands); err != nil {
			s.cfg.Log.Warn("restart a routing daemon that does not take its new VIPs", "daemon", name, "err", err)
			continue
		}
		owner, err := lookup(s.cfg.User)
		if err != nil {
			return err
		}
		if err := writeOwned(d.path(".conf"), after, owner); err != nil {
			return err
		}
		d.file = after
		s.cfg.Log.Info("told a routing daemon its VIPs", "daemon", name, "changes", len(commands)-3)
	}
	return nil
}
