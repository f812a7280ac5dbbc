package health

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// probeOf in the environment makes the test's program probe a server once and say what it found.
const probeOf = "BLADENET_TEST_PROBE_OF"

const shortTimeout = 200 * time.Millisecond

func TestMain(m *testing.M) {
	if server := os.Getenv(probeOf); server != "" {
		_, err := once(context.Background(), policy.Check{Timeout: shortTimeout}, func(ctx context.Context, _ policy.Check) (Answer, error) { return Answer{}, askAndStop(ctx, server) })
		if err != nil {
			_, _ = os.Stdout.WriteString(err.Error())
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// askAndStop is a probe that stops its own process when it has asked.
func askAndStop(ctx context.Context, server string) error {
	conn, err := net.Dial("tcp", server)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// TestAStoppedProberBlamesNoServer: a prober is stopped while a server answers, and goes on when its deadline is long over. A server that
// says nothing is down all the same.
func TestAStoppedProberBlamesNoServer(t *testing.T) {
	for range 3 { // without the grace the answer and the deadline are in a race
		if got := probeStopped(t, true); got != "" {
			t.Errorf("a server that answered meanwhile: %q", got)
		}
	}
	if got := probeStopped(t, false); got != "no answer within 200ms" {
		t.Errorf("a server that said nothing: %q", got)
	}
}

func probeStopped(t *testing.T, answers bool) string {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	prober := exec.CommandContext(t.Context(), self)
	prober.Env = append(os.Environ(), probeOf+"="+server.Addr().String())
	prober.Stdout = &out
	if err := prober.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for deadline := time.Now().Add(time.Minute); !stopped(prober.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the prober does not stop")
		}
	}
	if answers {
		if _, err := conn.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * shortTimeout)
	if err := prober.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := prober.Wait(); err != nil {
		t.Error(err)
	}
	return out.String()
}

func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") T ")
}
