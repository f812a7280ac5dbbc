package lxc

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/bladenet/bladenet/policy"
)

// weighs are the files of a control group that hold its part of a busy disk: of the kernel's cost model, and of the scheduler bfq once it is
// loaded. Which of them counts is the disk's to say.
var weighs = []string{"io.weight", "io.bfq.weight"}

// errNoWeights is met when the kernel has no weights for disks.
var errNoWeights = errors.New("io-weight: the kernel has neither io.weight nor io.bfq.weight: boot one with CONFIG_BLK_CGROUP_IOCOST, or modprobe bfq")

// weigh gives a running container its part of busy disks. A container cannot reboot by itself, so that its group has it until it ends.
func weigh(name policy.GuestName, weight int) error {
	if weight == 0 {
		return nil // a new group has the kernel's own
	}
	if err := enable(guestsGroup, "io"); err != nil {
		return err
	}
	written := false
	for _, file := range weighs {
		err := setFile(filepath.Join(cgroupsOf(name)[1], file), strconv.Itoa(weight))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", file, err)
		}
		written = true
	}
	if !written {
		return errNoWeights
	}
	return nil
}
