package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIsPowerKey(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		e := make([]byte, 16, eventSize)
		e = binary.NativeEndian.AppendUint16(e, kind)
		e = binary.NativeEndian.AppendUint16(e, code)
		return binary.NativeEndian.AppendUint32(e, value)
	}
	for name, c := range map[string]struct {
		event []byte
		want  bool
	}{
		"pressed":      {event(evKey, keyPower, pressed), true},
		"released":     {event(evKey, keyPower, 0), false},
		"another key":  {event(evKey, 28, pressed), false},
		"another type": {event(0, keyPower, pressed), false},
		"short":        {event(evKey, keyPower, pressed)[:20], false},
	} {
		if got := isPowerKey(c.event); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	button := make(chan struct{}, 1)
	readButton(io.NopCloser(bytes.NewReader(append(event(0, 0, 0), event(evKey, keyPower, pressed)...))), button)
	select {
	case <-button:
	default:
		t.Error("the button was not heard")
	}
}

func TestParse(t *testing.T) {
	o, err := parse(io.Discard, []string{"--listen", "unix:/x", "--beat", "3", "--machine"})
	if err != nil || o.Listen != "unix:/x" || o.Beat != 3 || !o.Host || o.State == "" || o.FRR == "" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"extra"}, {"--nonsense"}, {"--beat", "x"}} {
		if _, err := parse(io.Discard, args); err == nil || err == flag.ErrHelp {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := listen("unix:" + path) // what a killed worker left behind is no obstacle
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]string{"unix:" + file: "in use", "vsock:x": "port", "pigeon:1": "want vsock:PORT", "": "want vsock:PORT"} {
		if _, err := listen(where); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", where, err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that is no socket was removed: %v", err)
	}
	l, err := listen("tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
