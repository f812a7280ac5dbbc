//go:build kernel

package e2e

import (
	"os"
	"strings"
	"testing"
)

// TestAMissingModuleIsOneSentence starts bladed on a kernel that cannot track connections in a bridge, then mends that. It stands
// before the operator's day, while nothing uses the module.
func TestAMissingModuleIsOneSentence(t *testing.T) {
	const module, block = "nf_conntrack_bridge", "/etc/modprobe.d/bladenet-e2e.conf"
	run(t, "modprobe", "-r", module)
	if err := os.WriteFile(block, []byte("install "+module+" /bin/false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(block) })
	begin(t)
	w := waitingFor(t, module)
	if text := w.Step.Reason + w.Error; !strings.Contains(text, "modprobe "+module) {
		t.Errorf("status says %q, want the remedy: modprobe %s", text, module)
	}
	if links := status(t).Links; len(links) != 3 {
		t.Errorf("links = %v: the rest of the blade did not converge", links)
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	run(t, "modprobe", module)
	converged(t)
}
