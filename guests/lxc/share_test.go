package lxc

import "testing"

func TestMemoryShare(t *testing.T) {
	const mib = 1 << 20
	for total, want := range map[int64]int64{
		1024 * mib:   768 * mib,
		2048 * mib:   1536 * mib,
		4096 * mib:   3584 * mib,
		102400 * mib: 92160 * mib,
	} {
		if got := memoryShare(total); got != want {
			t.Errorf("of %d MiB: %d, want %d", total/mib, got/mib, want/mib)
		}
	}
}
