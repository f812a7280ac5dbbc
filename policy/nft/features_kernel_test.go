//go:build kernel

package nft

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestFeaturesNameTheMissingModule takes modules away, one at a time, and wants each named with its remedy, and nothing else.
func TestFeaturesNameTheMissingModule(t *testing.T) {
	namespace(t)
	k := open(t)
	for _, c := range []struct{ module, does string }{
		{"nft_meta_bridge", "meta ibrname in the bridge family"},
		{"nf_conntrack_bridge", "ct state in the bridge family"},
		{"nft_ct", "notrack in the bridge family"},
		{"nft_limit", "limit in the bridge family"},
	} {
		t.Run(c.module, func(t *testing.T) {
			without(t, c.module)
			err := k.Features(t.Context())
			if err == nil {
				t.Fatalf("nothing is missing without %s", c.module)
			}
			named := false
			for line := range strings.Lines(err.Error()) {
				if !strings.Contains(line, "modprobe "+c.module) {
					t.Errorf("without %s: %s", c.module, line)
				}
				named = named || strings.HasPrefix(line, c.does+": ")
			}
			if !named {
				t.Errorf("without %s, %q is not said to be missing: %v", c.module, c.does, err)
			}
		})
	}
	if err := k.Features(t.Context()); err != nil {
		t.Errorf("with all of them back: %v", err)
	}
}

// without unloads a module and keeps the kernel from loading it again until the test ends.
func without(t *testing.T, module string) {
	t.Helper()
	const block = "/etc/modprobe.d/bladenet-nft-test.conf"
	if err := os.WriteFile(block, []byte("install "+module+" /bin/false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := os.Remove(block)
		out, load := exec.Command("modprobe", module).CombinedOutput()
		if err := errors.Join(err, load); err != nil {
			t.Fatalf("bring %s back: %v: %s", module, err, out)
		}
	})
	// A namespace of a test before this one is cleared in the background.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command("modprobe", "-r", module).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("unload %s: %v: %s", module, err, out)
		}
	}
}
