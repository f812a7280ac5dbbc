package main

import (
	"strings"
	"testing"
)

// TestEveryVerbAndFlagIsCompletedAndExplained looks for each verb and flag in the completions and on the page.
func TestEveryVerbAndFlagIsCompletedAndExplained(t *testing.T) {
	page := ctl(t, "", "man").stdout
	shells := map[string]string{}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		shells[shell] = ctl(t, "", "completion", shell).stdout
	}
	flags := 0
	for _, d := range describeVerbs() {
		if !strings.Contains(page, ".SS "+roff(d.name)+" ") {
			t.Errorf("the page has no %s", d.name)
		}
		for shell, text := range shells {
			if !strings.Contains(text, d.name) {
				t.Errorf("%s does not complete %s", shell, d.name)
			}
		}
		for _, f := range d.flags {
			flags++
			if !strings.Contains(page, ".B "+roff(dashed(f))) {
				t.Errorf("the page has no %s of %s", dashed(f), d.name)
			}
			for shell, text := range shells {
				if name := strings.TrimLeft(dashed(f), "-"); !strings.Contains(text, name) {
					t.Errorf("%s does not complete %s of %s", shell, dashed(f), d.name)
				}
			}
		}
	}
	if flags < 40 {
		t.Errorf("only %d flags were found", flags)
	}
	if got := ctl(t, "", "completion", "csh"); got.status != exitError || !strings.Contains(got.stderr, "bash, zsh or fish") {
		t.Errorf("completion csh: status %d %s", got.status, got.stderr)
	}
}
