package lab

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStart(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	tests := map[string]struct {
		stat string
		want uint64
		bad  bool
	}{
		"plain":            {"12 (sleep)" + rest, 4242, false},
		"name with spaces": {"12 (a b) c)" + rest, 4242, false},
		"short":            {"12 (sleep) S 1", 0, true},
		"empty":            {"", 0, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseStart(test.stat)
			if got != test.want || (err != nil) != test.bad {
				t.Errorf("got %d and %v, want %d", got, err, test.want)
			}
		})
	}
}

func startSleep(t *testing.T) (*exec.Cmd, process) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestEndEndsOurProcess(t *testing.T) {
	_, p := startSleep(t)
	if !p.alive() {
		t.Fatal("a process that was just started is not alive")
	}
	if err := p.end(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if p.alive() {
		t.Error("an ended process is alive")
	}
}

func TestEndSparesWhoHasTheNumberNow(t *testing.T) {
	_, p := startSleep(t)
	earlier := process{p.PID, p.Start - 1}
	if earlier.alive() {
		t.Error("an earlier owner of the number is alive")
	}
	if err := earlier.end(time.Second); err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Error("the later owner of the number was ended")
	}
}

func TestAliveKnowsZombies(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(os.Kill)
	for end := time.Now().Add(5 * time.Second); p.alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a zombie is alive")
		}
	}
	_ = cmd.Wait()
}
