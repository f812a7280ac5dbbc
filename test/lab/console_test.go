package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFromPanicBeginsWithItsCause(t *testing.T) {
	const trace = "[1.2] RIP: 0010:nmi_restore+0x1\n[1.3] Call Trace:\n[1.4]  <IRQ>\n"
	for what, c := range map[string]struct {
		console, want string
		ok            bool
	}{
		"alive":      {console: "lab: booted\n[1.0] BUG: that was survived\n"},
		"bare panic": {"booted\n[1.5] Kernel panic - not syncing: sysrq\n[1.6] CPU: 0\n", "[1.5] Kernel panic - not syncing: sysrq\n[1.6] CPU: 0", true},
		"oops first": {
			"booted\n[1.0] BUG: unable to handle page fault\n[1.1] Oops: 0000 [#1]\n" + trace + "[1.5] Kernel panic - not syncing: Fatal exception in interrupt\n",
			"[1.0] BUG: unable to handle page fault\n[1.1] Oops: 0000 [#1]\n" + trace + "[1.5] Kernel panic - not syncing: Fatal exception in interrupt", true,
		},
		"long ago": {
			"[0.1] Oops: of a boot long ago\n" + strings.Repeat("line\n", traceLines) + "[1.5] Kernel panic\n", "[1.5] Kernel panic", true,
		},
	} {
		got, ok := fromPanic(c.console)
		if diff := cmp.Diff(c.want, got); diff != "" || ok != c.ok {
			t.Errorf("%s: %t (-want +got)\n%s", what, ok, diff)
		}
	}
}

func TestAConsoleOutlivesItsLab(t *testing.T) {
	stateHere(t)
	l, other := makeLab(t, "one"), makeLab(t, "one-2")
	for _, x := range []*Lab{l, other} {
		if err := os.WriteFile(x.path(fileConsole), []byte("[1.0] Kernel panic of "+x.Name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := x.keepConsole(time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.write(fileEnd, ending{Reason: "the machine has stopped"}); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(Folder(), "one-19700101T000000Z.console")
	for _, want := range []string{"the machine has stopped", "Kernel panic of one\n", kept} {
		if got := l.why().Error(); !strings.Contains(got, want) {
			t.Errorf("why says %q, want %q", got, want)
		}
	}
	if err := Down("one"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(kept); err != nil || !strings.Contains(string(data), "Kernel panic of one") {
		t.Errorf("after down: %q, %v", data, err)
	}
	if labs, err := List(); err != nil || len(labs) != 1 {
		t.Errorf("List = %v, %v: a kept console is no lab", labs, err)
	}
}
