package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/test/lab/guest"
	"github.com/bladenet/bladenet/test/lab/wire"
)

// agentHere runs an agent on this machine: everything but the namespaces works without a VM.
func agentHere(t *testing.T) (port int, token string) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = guest.Serve(listener, guest.Config{Token: "secret", Blade: "here"})
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().(*net.TCPAddr).Port, "secret"
}

// result is all that a command gives back.
type result struct {
	Status         int
	Stdout, Stderr string
}

func runHere(t *testing.T, c Command) (result, error) {
	t.Helper()
	port, token := agentHere(t)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	status, err := execAt(ctx, port, token, c)
	return result{status, stdout.String(), stderr.String()}, err
}

func TestExecPassesEverythingThrough(t *testing.T) {
	tests := map[string]struct {
		command Command
		want    result
	}{
		"status":  {Command{Args: []string{"sh", "-c", "exit 7"}}, result{Status: 7}},
		"streams": {Command{Args: []string{"sh", "-c", "echo out; echo err >&2"}}, result{Stdout: "out\n", Stderr: "err\n"}},
		"signal":  {Command{Args: []string{"sh", "-c", "kill -9 $$"}}, result{Status: 137}},
		"words": {
			Command{Args: []string{"printf", "<%s>", "a b", "c'd", `e"f`, "$x", "", "nl\n", "*", "\\", "\xff\xfe", "--", "é"}},
			result{Stdout: "<a b><c'd><e\"f><$x><><nl\n><*><\\><\xff\xfe><--><é>"},
		},
		"stdin":       {Command{Args: []string{"cat"}, Stdin: strings.NewReader("one\x00two")}, result{Stdout: "one\x00two"}},
		"no stdin":    {Command{Args: []string{"cat"}}, result{}},
		"environment": {Command{Args: []string{"sh", "-c", "echo $A"}, Env: []string{"A=b c"}}, result{Stdout: "b c\n"}},
		"folder":      {Command{Args: []string{"pwd"}, Dir: "/"}, result{Stdout: "/\n"}},
		"the blade":   {Command{Args: []string{"true"}, In: "here"}, result{}},
		"stdin that nobody reads": {
			Command{Args: []string{"sh", "-c", "exec <&-; echo done"}, Stdin: bytes.NewReader(make([]byte, 4<<20))},
			result{Stdout: "done\n"},
		},
		"background": {
			Command{Args: []string{"sh", "-c", "sleep 10 & echo started"}},
			result{Stdout: "started\n"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			got, err := runHere(t, test.command)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("took %v: it waited for what the command left behind", took)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error("(-want +got)\n" + diff)
			}
		})
	}
}

func TestExecSaysWhyNothingStarted(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		command Command
		status  int
		reason  string
	}{
		"no such program": {Command{Args: []string{"no-such-program"}}, 127, "not found"},
		"no such path":    {Command{Args: []string{"/no/such/program"}}, 127, "no such file"},
		"not a program":   {Command{Args: []string{plain}}, 126, "permission denied"},
		"no command":      {Command{}, 125, "no command"},
		"no such place":   {Command{Args: []string{"true"}, In: "nowhere"}, 125, "no blade, container or namespace of that name"},
		"path as place":   {Command{Args: []string{"true"}, In: "../etc"}, 125, "not a name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := runHere(t, test.command)
			if got.Status != test.status || err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("got status %d and %v, want %d and %q", got.Status, err, test.status, test.reason)
			}
		})
	}
}

func TestExecRefusesAnothersToken(t *testing.T) {
	port, _ := agentHere(t)
	status, err := execAt(t.Context(), port, "guess", Command{Args: []string{"true"}})
	if status != 125 || err == nil || !strings.Contains(err.Error(), "wrong token") {
		t.Errorf("got status %d and %v, want 125 and a wrong token", status, err)
	}
}

// TestExecCarriesMuch sends more than any buffer holds, both ways at once, to a reader that is slower than the command.
func TestExecCarriesMuch(t *testing.T) {
	port, token := agentHere(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
	var got bytes.Buffer
	slow := writerFunc(func(p []byte) (int, error) {
		time.Sleep(time.Millisecond)
		return got.Write(p)
	})
	status, err := execAt(t.Context(), port, token, Command{Args: []string{"cat"}, Dir: "/", Stdin: bytes.NewReader(want), Stdout: slow})
	if status != 0 || err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got status %d, %v and %d bytes, want %d", status, err, got.Len(), len(want))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExecKillsWhatNobodyWaitsFor(t *testing.T) {
	port, token := agentHere(t)
	note := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	go func() {
		_, _ = io.ReadFull(out, make([]byte, 1)) // it runs
		cancel()
		_, _ = io.Copy(io.Discard, out)
	}()
	status, err := execAt(ctx, port, token, Command{Args: []string{"sh", "-c", "echo $$ >" + note + "; echo; exec sleep 60"}, Dir: "/", Stdout: in})
	in.Close()
	if status != 130 || !errors.Is(err, context.Canceled) {
		t.Errorf("got status %d and %v, want 130 and %v", status, err, context.Canceled)
	}
	var pid int
	data, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d outlives its caller", pid)
		}
	}
}

func TestExecGivesATerminal(t *testing.T) {
	got, err := runHere(t, Command{Args: []string{"sh", "-c", "test -t 0 && test -t 1 && stty size"}, Size: &wire.Size{Rows: 33, Columns: 99}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(result{Stdout: "33 99\r\n"}, got); diff != "" {
		t.Error("(-want +got)\n" + diff)
	}
}
