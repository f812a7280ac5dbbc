package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy/plan"
)

func applyVerb() verb {
	v := verb{
		name: "apply", args: "", brief: "Make this blade as the policy folder says",
		example: "bladectl apply --note 'second node for www' --confirm 2m",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		note := f.String("note", "", "a word on why, kept with the revision")
		confirm := f.window()
		if _, err := f.parse(args, 0, 0); err != nil {
			return err
		}
		see := f.events()
		return see.end(f.client.Apply(ctx, api.ApplyRequest{Note: *note, Confirm: *confirm}, see.event))
	}
	return v
}

// events prints a stream of events: a JSON document each for programs; for people a line for each stage, or for each step with -v,
// on stderr except for the last, which is the result.
type events struct {
	f     *flags
	said  bool
	steps []plan.Step // of the stage that is under way
}

func (f *flags) events() *events { return &events{f: f} }

func (s *events) event(e api.Event) {
	if s.f.output == "json" || s.f.output == "yaml" {
		_ = json.NewEncoder(s.f.env.stdout).Encode(e)
		s.said = s.said || e.Done
		return
	}
	if len(e.Diagnostics) > 0 {
		_ = e.Diagnostics.Render(s.f.env.stdout)
		s.said = s.said || e.Diagnostics.HasErrors()
	}
	text := e.Message
	if e.Step != nil {
		s.steps = append(s.steps, *e.Step)
		if e.Took == 0 && !s.f.verbose {
			return // more of this stage are coming; the last one says how long they took
		}
		text = stageLine(s.steps)
		if s.f.verbose {
			text = e.Step.String()
		}
		s.steps = nil
	}
	if text == "" {
		return
	}
	out := s.f.env.stderr
	if e.Done {
		out = s.f.env.stdout
	}
	took := ""
	if e.Took >= time.Millisecond {
		took = fmt.Sprintf("  [%.2fs]", e.Took.Seconds())
	}
	fmt.Fprintf(out, "%7.2fs  %s%s\n", e.Elapsed.Seconds(), text, took)
}

// stageLine says on one line what a stage did; the first steps by name.
func stageLine(steps []plan.Step) string {
	const named = 4
	var parts []string
	for i, step := range steps {
		if i == named && len(steps) > named+1 {
			parts = append(parts, fmt.Sprintf("and %d more (-v shows them)", len(steps)-named))
			break
		}
		part := string(step.Verb) + " " + step.Object
		if step.Reason != "" && step.Verb == plan.Blocked {
			part += " (" + step.Reason + ")"
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%-8s  %s", steps[0].Subsystem, strings.Join(parts, ", "))
}

// end returns the verb's error, without saying again what the stream has said.
func (s *events) end(err error) error {
	if err != nil && s.said {
		return errSaid
	}
	return err
}
