package hostagent

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// given adds up what a blade's guests may take, and puts what there is beside it (sysinfo(2), sched_getaffinity(2)).
func given(guests []policy.Guest) (api.Given, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return api.Given{}, fmt.Errorf("read the blade's memory: %w", err)
	}
	out := api.Given{MemoryHere: int64(info.Totalram) * int64(info.Unit), CPUsHere: runtime.NumCPU()}
	for _, g := range guests {
		out.Memory += g.Memory
		out.CPUs += g.CPUs
	}
	return out, nil
}
