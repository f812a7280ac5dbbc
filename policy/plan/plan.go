// Package plan is the one shape and the one rendering of what a subsystem is about to do. It never does it.
package plan

import (
	"fmt"
	"io"
	"strings"
)

// Verb is what a step does to its object.
type Verb string

// The verbs. A blocked step is not done: its Reason says what stands in the way.
const (
	Create  Verb = "create"
	Update  Verb = "update"
	Delete  Verb = "delete"
	Start   Verb = "start"
	Stop    Verb = "stop"
	Blocked Verb = "blocked"
)

// Step is one change to one object. Subsystems keep the data that they need to do it beside it, in a type of their own.
type Step struct {
	Subsystem string   `json:"subsystem"` // links, filter, inside, guests, director
	Verb      Verb     `json:"verb"`
	Object    string   `json:"object"`           // kind and name: "bridge br120"
	Guest     string   `json:"guest,omitempty"`  // the guest that the object belongs to
	Detail    []string `json:"detail,omitempty"` // "mtu 1500 -> 9000"
	Reason    string   `json:"reason,omitempty"` // why it is needed, or why it is blocked
}

var marks = map[Verb]string{Create: "+", Update: "~", Delete: "-", Start: ">", Stop: "x", Blocked: "!"}

// String writes the step on one line.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-8s %-7s %s", marks[s.Verb], s.Subsystem, s.Verb, s.Object)
	if len(s.Detail) > 0 {
		b.WriteString("  " + strings.Join(s.Detail, ", "))
	}
	if s.Reason != "" {
		b.WriteString("  (" + s.Reason + ")")
	}
	return b.String()
}

// Render writes the steps, one a line, in their order, then a line that counts them.
func Render(w io.Writer, steps []Step) error {
	count := map[Verb]int{}
	for _, s := range steps {
		count[s.Verb]++
		if _, err := fmt.Fprintln(w, s); err != nil {
			return err
		}
	}
	if len(steps) == 0 {
		_, err := fmt.Fprintln(w, "nothing to do")
		return err
	}
	var parts []string
	for _, v := range []Verb{Create, Update, Delete, Start, Stop, Blocked} {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", count[v], v))
		}
	}
	_, err := fmt.Fprintln(w, strings.ReplaceAll(strings.Join(parts, ", "), "to blocked", "blocked"))
	return err
}
