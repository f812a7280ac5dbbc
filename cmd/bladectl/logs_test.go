package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestAGuestsConsoleSteersNoTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"boot\r\nready\n":               "boot\nready\n",
		"\x1b[2J\x1b]0;owned\x07":       "?[2J?]0;owned?",
		"tab\there, ünïcode, \u009b31m": "tab\there, ünïcode, ?31m",
		"\xff\xfe broken":               "\ufffd\ufffd broken",
		"":                              "",
		"\u202etfel ot thgir":           "?tfel ot thgir",
	} {
		var out bytes.Buffer
		if err := printClean(&out, strings.NewReader(in)); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, &out, err, want)
		}
	}
}
