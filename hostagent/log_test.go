package hostagent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"", 3, ""},
		{"one\n", 1, "one\n"},
		{"one\ntwo\n", 1, "two\n"},
		{"one\ntwo", 1, "two"},
		{"one\ntwo\nthree\n", 2, "two\nthree\n"},
		{"one\ntwo\n", 2, "one\ntwo\n"},
		{"one\ntwo\n", 9, "one\ntwo\n"},
		{"one\ntwo\n", 0, "one\ntwo\n"},
		{"\n\n", 1, "\n"},
		{"\n", 1, "\n"},
	} {
		if got := string(lastLines([]byte(c.text), c.n)); got != c.want {
			t.Errorf("last %d of %q: %q, want %q", c.n, c.text, got, c.want)
		}
	}
}

func TestALogIsFollowedOverItsReplacement(t *testing.T) {
	name := filepath.Join(t.TempDir(), "console.log")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Repeat("a line of before\n", longestTail/8) + "boot\n")
	var out bytes.Buffer
	at, err := copyTail(&out, name, 1)
	if err != nil {
		t.Fatal(err)
	}
	next := func() {
		t.Helper()
		if at, err = copyMore(&out, name, at); err != nil {
			t.Fatal(err)
		}
	}
	next()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("more\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	next()
	write("cut\n")
	next()
	if err := os.Rename(name, name+".0"); err != nil {
		t.Fatal(err)
	}
	write("a new one, longer than the old\n")
	next()
	if want := "boot\nmore\ncut\na new one, longer than the old\n"; out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
}
