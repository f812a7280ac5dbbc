//go:build kernel

package channel

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
)

// TestKernelVsockTakesTheHostOnly holds that a process of the guest itself, which reaches the port by the loopback transport,
// is hung up on before it can say anything.
func TestKernelVsockTakesTheHostOnly(t *testing.T) {
	if out, err := exec.Command("modprobe", "vsock_loopback").CombinedOutput(); err != nil {
		t.Fatalf("modprobe vsock_loopback: %v: %s", err, out)
	}
	const port = 19640
	l, err := Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Server{Handler: &echo{}, Log: quiet()}.Serve(ctx, l) }()
	for range 3 {
		conn, err := vsock.Dial(vsock.Local, port, nil)
		if err != nil {
			t.Fatal(err)
		}
		cctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = NewClient(cctx, conn, "impostor")
		if err == nil || cctx.Err() != nil {
			t.Errorf("error %v, want to be hung up on", err)
		}
		stop()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestKernelDialNobody holds that a guest that is not there is an error soon.
func TestKernelDialNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	_, err := Dial(ctx, 987654321)
	if err == nil || !strings.Contains(err.Error(), "dial guest at vsock 987654321") || time.Since(began) > 4*time.Second {
		t.Errorf("error %v after %s", err, time.Since(began))
	}
}
