package service

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestSpec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "service.json")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	want := Spec{Command: []string{"/usr/sbin/nginx", "-c", "a b"}, Halt: "SIGQUIT"}
	text, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for bad, word := range map[string]string{
		"": "decode service", "{}": "absolute path", `{"command": ["nginx"]}`: "absolute path", `{"command": ["/a", "\u0000"]}`: "zero byte",
	} {
		if _, err := Decode([]byte(bad)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want a word on %q", bad, err, word)
		}
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "service-state.json")
	if s, err := LoadState(path); err != nil || s != (State{}) {
		t.Errorf("before the first start: %+v, %v", s, err)
	}
	want := State{Running: true, Restarts: 3, Ended: "exit status 1"}
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadState(path); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadState(path); err == nil {
		t.Error("half a state was read")
	}
}

// What is read has a program that can be started, and is written as it was read.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"command":["/usr/sbin/nginx"],"halt":"SIGQUIT"}`))
	f.Add([]byte(`{"command":["/a","\u0000"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Decode(text)
		if err != nil {
			return
		}
		if !strings.HasPrefix(s.Command[0], "/") || strings.ContainsRune(strings.Join(s.Command, ""), 0) {
			t.Errorf("command %q", s.Command)
		}
		out, err := Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Decode(out); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}
