package doctor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/guests/quota"
	"github.com/bladenet/bladenet/policy"
)

// shares looks for what io-weight and disk need, where an entry has them: the kernel follows weights only at a disk that was told to, and
// bounds what is written only on a file system that counts.
func shares(_ context.Context, h Host) []finding {
	var out []finding
	if slices.ContainsFunc(h.Blade.Guests, func(g policy.Guest) bool { return g.IOWeight > 0 }) && !h.weighs() {
		out = append(out, doubtful("no disk of this blade follows weights: io-weight does nothing",
			"echo bfq > /sys/block/DISK/queue/scheduler, and a udev rule that does it at boot; or io.cost.qos"))
	}
	if h.Quotas == nil || !slices.ContainsFunc(h.Blade.Guests, func(g policy.Guest) bool { return g.Disk > 0 }) {
		return out
	}
	if folder := nearest(filepath.Join(h.State, "lxc")); errors.Is(h.Quotas(folder), quota.ErrNone) {
		out = append(out, wrong(fmt.Sprintf("containers with disk: in their entry are not made in %s (%s)", folder, fileSystem(folder)),
			"keep the state folder where project quotas are: ext4 after tune2fs -O project,quota -Q prjquota, or xfs, mounted with prjquota"))
	}
	return out
}

// weighs says whether a disk's scheduler, or the kernel's cost model for it, follows weights. Which disk the clones are on cannot be told of
// every stack of devices.
func (h Host) weighs() bool {
	schedulers, _ := filepath.Glob(h.path("sys/block/*/queue/scheduler"))
	for _, file := range schedulers {
		if name, err := filepath.Rel(h.path(""), file); err == nil && strings.Contains(h.read(name), "[bfq]") {
			return true
		}
	}
	return strings.Contains(h.read("sys/fs/cgroup/io.cost.qos"), "enable=1")
}
