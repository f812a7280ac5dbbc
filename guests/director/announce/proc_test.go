package announce

import (
	"os"
	"syscall"
	"testing"
)

// TestParseStat: the name of a process is in brackets and may look like all the rest.
func TestParseStat(t *testing.T) {
	for text, want := range map[string]stat{
		"7 (a) S 1 9 9 0":             {'S', 9},
		"7 (x) T 2 3 ) T (y) Z 1 8 8": {'Z', 8},
		"7 () R 1 -1 0":               {'R', -1},
	} {
		if got, err := parseStat([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "7 (a)", "7 (a) S", "7 (a) S 1", "7 (a) S 1 x", ")"} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestOwnStat(t *testing.T) {
	if got, err := readStat(os.Getpid()); err != nil || got.group <= 0 || got.state == 'T' {
		t.Errorf("%+v, %v", got, err)
	}
	found := processes(func(pid int) bool { return pid == os.Getpid() })
	if len(found) != 1 {
		t.Errorf("found itself %d times", len(found))
	}
}

// TestTakes: Go has a handler for SIGUSR1, and nobody can have one for SIGKILL.
func TestTakes(t *testing.T) {
	own := os.Getpid()
	if !takes(own, syscall.SIGUSR1) || takes(own, syscall.SIGKILL) || takes(1<<30, syscall.SIGUSR1) {
		t.Errorf("SIGUSR1 %t, SIGKILL %t, of nobody %t", takes(own, syscall.SIGUSR1), takes(own, syscall.SIGKILL), takes(1<<30, syscall.SIGUSR1))
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a) S 1 9 9 0"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := parseStat(text); err == nil && got.state == 0 {
			t.Errorf("%q: no state", text)
		}
	})
}
