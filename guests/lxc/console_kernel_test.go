//go:build kernel

package lxc

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/policy"
)

// TestConsole types at a container's console and reads its answers, which another one cannot do meanwhile; what was shown is in the log, too.
func TestConsole(t *testing.T) {
	ctx := context.Background()
	const name = "console-rs1"
	d := blade(t)
	d.Images = tiny(t, "/bin/busybox", "sh", "-c", "while read word; do echo heard $word; done; exec /bin/busybox sleep 300")
	namespace(t, name)
	s := guests.Define(policy.Guest{Name: name, Driver: policy.DriverLXC, Memory: 32 << 20, CPUs: 1}, "web-0123456789ab")
	do(t, "create", func() error { return d.Create(ctx, s) })
	if err := d.Console(ctx, name, [3]*os.File{}); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("console of a stopped container: %v", err)
	}
	do(t, "start", func() error { return d.Start(ctx, s.Name) })
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer in.Close()
	out, shown, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	joined, leave := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- d.Console(joined, name, [3]*os.File{in, shown, shown})
		shown.Close()
	}()
	if _, err := io.WriteString(keys, "one\n"); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for !bytes.Contains(text, []byte("heard one")) {
		chunk := make([]byte, 1000)
		if err := out.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := out.Read(chunk)
		if text = append(text, chunk[:n]...); err != nil {
			t.Fatalf("console: %q, %v", text, err)
		}
	}
	if err := d.Console(ctx, name, [3]*os.File{in, shown, shown}); err == nil || !strings.Contains(err.Error(), "somebody else has it") {
		t.Errorf("a second one at the console: %v", err)
	}
	leave()
	if err := <-ended; err != nil {
		t.Errorf("left: %v", err)
	}
	log, err := os.ReadFile(d.ConsoleLog(name))
	if err != nil || !strings.Contains(string(log), "heard one") {
		t.Errorf("log %q, %v", log, err)
	}
	if o := observed(t, d, name); o.Phase != guests.Running {
		t.Errorf("the container is %s after its console was left", o.Phase)
	}
}
