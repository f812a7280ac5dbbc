package lxc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/guests/lxc/config"
	"github.com/bladenet/bladenet/policy"
)

func TestChooseHasNoCollisions(t *testing.T) {
	var taken []span
	for i := range 3000 {
		name := policy.GuestName(fmt.Sprintf("www-%d", i))
		s, err := choose(name, taken)
		if err != nil {
			t.Fatal(err)
		}
		if overlapsAny(s, taken) || s.first < firstID || s.first+s.count > 1<<31 || s.count != config.IDs {
			t.Fatalf("%s: %+v", name, s)
		}
		if again, err := choose(name, taken); err != nil || again != s {
			t.Errorf("%s: %+v, then %+v, %v", name, s, again, err)
		}
		taken = append(taken, s)
	}
	if _, err := choose("late", []span{{first: 0, count: 1 << 32}}); err == nil || !strings.Contains(err.Error(), "no ids are left") {
		t.Errorf("all taken: %v", err)
	}
}

// A guest keeps its ids while its folder is there, whatever comes and goes beside it.
func TestReserveKeeps(t *testing.T) {
	d := New(Options{Dir: t.TempDir()})
	reserve := func(name string) uint32 {
		t.Helper()
		if err := os.MkdirAll(d.dir(policy.GuestName(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		base, err := d.reserve(policy.GuestName(name))
		if err != nil {
			t.Fatal(err)
		}
		return base
	}
	other := filepath.Join(d.Dir, "other", idsFile)
	if err := os.MkdirAll(filepath.Dir(other), 0o700); err != nil {
		t.Fatal(err)
	}
	chosen, err := choose("www-2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, fmt.Appendf(nil, "%d %d\n", chosen.first, chosen.count), 0o600); err != nil {
		t.Fatal(err)
	}
	own := reserve("www-1")
	if second := reserve("www-2"); uint64(second) == chosen.first || second == own {
		t.Errorf("www-2 has ids that are taken: %d", second)
	}
	if again := reserve("www-1"); again != own {
		t.Errorf("www-1 had %d, has %d", own, again)
	}
	for _, text := range []string{"", "0 65536\n", "1073741825 65536\n", "1073741824 65535\n", "1879048192 65536\n", "-1 65536\n"} {
		if err := os.WriteFile(filepath.Join(d.Dir, "www-1", idsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readIDs(filepath.Join(d.Dir, "www-1", idsFile)); err == nil {
			t.Errorf("ids %q are taken", text)
		}
		if again := reserve("www-1"); again != own {
			t.Errorf("www-1 had %d, has %d after %q", own, again, text)
		}
	}
}

func TestHandedOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("# note\nann:100000:65536\nroot:1073741824:805306368\nbob:1:x\n1000:1073741824:1\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := handedOut([]string{file, file + ".none"})
	want := []span{{100000, 65536, "ann in " + file}, {1073741824, 1, "1000 in " + file}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(span{})); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
