//go:build kernel

package lxc

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
)

// tiny is a store with one image of one static program, busybox, and a command.
func tiny(t *testing.T, command ...string) image.Store {
	t.Helper()
	// A temporary folder may be one in memory, whose files Linux 6.1 cannot show with other owners.
	dir, err := os.MkdirTemp("/var/tmp", "images")
	if err != nil {
		t.Fatal(err)
	}
	s := image.Store{Dir: dir}
	t.Cleanup(func() { os.RemoveAll(s.Dir) })
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(s.Dir, "web-0123456789ab")
	for _, sub := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), shell, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(image.Image{ID: "web-0123456789ab", Name: "web", Kind: policy.DriverLXC, Command: command})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "image.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// Arguments reach init as the recipe wrote them, and what init prints is kept beside the container.
func TestArgumentsAndConsole(t *testing.T) {
	ctx := context.Background()
	const name = "tiny-rs1"
	d := blade(t)
	d.Images = tiny(t, "/bin/busybox", "sh", "-c", `for a in $0 $# ; do echo word $a; done; echo "two  blanks"; exec /bin/busybox sleep 300`, "a b")
	namespace(t, name)
	s := guests.Define(policy.Guest{Name: name, Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1}, "web-0123456789ab")
	do(t, "create", func() error { return d.Create(ctx, s) })
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	deadline := time.Now().Add(10 * time.Second)
	for {
		text, err := os.ReadFile(filepath.Join(d.Dir, name, "console.log"))
		lines := strings.Fields(string(text))
		if err == nil && strings.Join(lines, " ") == "word a word b word 0 two blanks" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("console: %q, %v", text, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
