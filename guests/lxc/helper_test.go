package lxc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFirstError(t *testing.T) {
	log := filepath.Join(t.TempDir(), "lxc.log")
	text := `lxc www-1 20261120133452.637 WARN     cgfsng - ../src/lxc/cgroups/cgfsng.c:cgfsng_setup_limits:3232 - Invalid argument - Ignoring
lxc www-1 20261120133452.700 ERROR    conf - ../src/lxc/conf.c:run_buffer:321 - Script exited with status 2
lxc www-1 20261120133452.701 ERROR    start - ../src/lxc/start.c:lxc_init:844 - Failed to initialize
`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := firstError(log); got != "Script exited with status 2" {
		t.Errorf("got %q", got)
	}
	if err := os.WriteFile(log, []byte("reset oom score: permission denied\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := firstError(log); got != "reset oom score: permission denied" {
		t.Errorf("got %q", got)
	}
	if got := firstError(filepath.Join(t.TempDir(), "none")); got != "" {
		t.Errorf("got %q of no file", got)
	}
}
