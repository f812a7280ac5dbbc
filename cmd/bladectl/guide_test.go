package main

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var command = regexp.MustCompile("`(bladectl [^`]+)`|(?m)^    (bladectl .+)$")

// TestTheGuidesCommandsAreThere holds each command of the operator's guide against the verbs and flags that there are.
func TestTheGuidesCommandsAreThere(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]string{}
	for _, d := range describeVerbs() {
		known[d.name] = []string{}
		for _, f := range d.flags {
			known[d.name] = append(known[d.name], dashed(f))
		}
	}
	found := 0
	for _, m := range command.FindAllStringSubmatch(string(text), -1) {
		words := strings.Fields(m[1] + m[2])
		flags, ok := known[words[1]]
		if !ok {
			if words[1] != "VERB" {
				t.Errorf("%s: no such verb", strings.Join(words, " "))
			}
			continue
		}
		found++
		for _, w := range words[2:] {
			if w == "--" || w == ">" {
				break
			}
			if name, _, _ := strings.Cut(w, "="); strings.HasPrefix(w, "-") && !slices.Contains(flags, name) {
				t.Errorf("%s: no flag %s; there are %v", strings.Join(words, " "), w, flags)
			}
		}
	}
	if found < 35 {
		t.Errorf("%d commands: the guide has more", found)
	}
	if f := (&flag.Flag{Name: "confirm"}); !slices.Contains(known["apply"], dashed(f)) {
		t.Errorf("apply has %v", known["apply"])
	}
}
