package lxc

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/guests/lxc/config"
	"github.com/bladenet/bladenet/policy"
)

// Containers' ids lie above those that Debian's tools hand out to users (they end at 600100000) and below those that some of the kernel's
// interfaces take for negative. systemd-nspawn draws from here too.
const (
	firstID = 0x40000000
	slots   = 0x3000
)

// idsFile says in a container's folder which ids are its own: the first one and their count.
const idsFile = "ids"

// span is a range of ids.
type span struct {
	first, count uint64
	owner        string
}

func (s span) overlaps(o span) bool { return s.first < o.first+o.count && o.first < s.first+s.count }

// reserve returns the first of a container's ids: those that its folder names, or new ones that nobody else has. They stay its own until it is destroyed.
func (d *Driver) reserve(name policy.GuestName) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	others, err := handedOut([]string{"/etc/subuid", "/etc/subgid"})
	if err != nil {
		return 0, err
	}
	file := filepath.Join(d.dir(name), idsFile)
	if own, err := readIDs(file); err == nil {
		for _, o := range others {
			if own.overlaps(o) {
				return 0, fmt.Errorf("its ids from %d overlap those of %s: destroy it, or take them from %s", own.first, o.owner, o.owner)
			}
		}
		return uint32(own.first), nil
	}
	if err := d.learnIDs(); err != nil {
		return 0, err
	}
	delete(d.ids, name) // what it had is not known any more
	free, err := choose(name, slices.AppendSeq(others, maps.Values(d.ids)))
	if err != nil {
		return 0, err
	}
	if err := writeFile(file, fmt.Appendf(nil, "%d %d\n", free.first, free.count)); err != nil {
		return 0, err
	}
	d.ids[name] = free
	return uint32(free.first), nil
}

// learnIDs reads once which ids are whose: nobody but this driver changes that. The caller holds the lock.
func (d *Driver) learnIDs() error {
	if d.ids != nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(d.Dir, "*", idsFile))
	if err != nil {
		return err
	}
	d.ids = map[policy.GuestName]span{}
	for _, f := range files {
		if s, err := readIDs(f); err == nil { // else it was destroyed meanwhile, or has to be made anew before it starts
			d.ids[policy.GuestName(filepath.Base(filepath.Dir(f)))] = s
		}
	}
	return nil
}

// release gives the ids of a destroyed container back.
func (d *Driver) release(name policy.GuestName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.ids, name)
}

// choose returns the first free range after the place that the name has by chance: nearly always that place, so that a guest made anew
// has the ids that it had.
func choose(name policy.GuestName, taken []span) (span, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	for i := range uint64(slots) {
		s := span{first: firstID + (uint64(h.Sum32())+i)%slots*config.IDs, count: config.IDs}
		if !overlapsAny(s, taken) {
			return s, nil
		}
	}
	return span{}, fmt.Errorf("no ids are left: all %d ranges from %d are taken", slots, firstID)
}

func overlapsAny(s span, taken []span) bool {
	for _, t := range taken {
		if s.overlaps(t) {
			return true
		}
	}
	return false
}

// readIDs reads a container's own. What is not a place of ours is an error: a container with the ids of somebody else must not start.
func readIDs(file string) (span, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return span{}, err
	}
	var s span
	if n, err := fmt.Sscanf(string(text), "%d %d\n", &s.first, &s.count); n != 2 || err != nil || s.count != config.IDs ||
		s.first < firstID || s.first >= firstID+slots*config.IDs || s.first%config.IDs != 0 {
		return span{}, fmt.Errorf("%s does not name ids of a container: %.40q", file, text)
	}
	return s, nil
}

// handedOut lists what users were given by files of lines of owner, first and count (subuid(5)). What root was given is meant for
// containers.
func handedOut(files []string) ([]span, error) {
	var out []span
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			if len(fields) != 3 || fields[0] == "root" || fields[0] == "0" {
				continue
			}
			first, err1 := strconv.ParseUint(fields[1], 10, 32)
			count, err2 := strconv.ParseUint(fields[2], 10, 33)
			if err1 == nil && err2 == nil { // another line gives nobody anything
				out = append(out, span{first, count, fields[0] + " in " + file})
			}
		}
	}
	return out, nil
}
