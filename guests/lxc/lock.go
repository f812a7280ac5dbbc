package lxc

import (
	"path/filepath"

	"github.com/bladenet/bladenet/policy"
)

// lockFile is the lock that liblxc makes for each container and never removes (lxclock.c: RUNTIME_PATH/lxc/lock/LXCPATH/.NAME).
func (d *Driver) lockFile(name policy.GuestName) string {
	return filepath.Join("/run/lxc/lock", d.Dir, "."+string(name))
}
