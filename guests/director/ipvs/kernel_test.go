package ipvs

import (
	"context"
	"errors"
	"os"
	"testing"
)

// TestNoIPVS holds that a kernel without IPVS is an error by name, not an empty table; on a kernel with it that it is not said.
func TestNoIPVS(t *testing.T) {
	k := Open("")
	defer k.Close()
	_, err := k.Observe(context.Background())
	_, missing := os.Stat("/proc/net/ip_vs")
	if got, want := errors.Is(err, ErrNoIPVS), missing != nil; got != want {
		t.Errorf("error %v, IPVS missing: %v", err, want)
	}
}
