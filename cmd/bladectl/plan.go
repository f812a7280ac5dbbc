package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

func planVerb() verb {
	v := verb{
		name: "plan", args: "[DIR]", brief: "Show what would change on this blade, exactly",
		example: "bladectl plan --exit-code",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		exitCode := f.Bool("exit-code", false, "exit with 2 when something would change")
		revision := f.Int("revision", 0, "plan for this revision's files")
		from := f.Int("from", 0, "plan the way from this revision to --revision, or to the one in force, whatever the blade looks like now")
		words, err := f.parse(args, 0, 1)
		if err != nil {
			return err
		}
		request := api.PlanRequest{Revision: *revision, From: *from}
		if len(words) == 1 && *revision+*from != 0 {
			return errors.New("plan for a folder, or for revisions: not both")
		}
		if len(words) == 1 {
			if request.Files, err = readFiles(words[0]); err != nil {
				return err
			}
		}
		answer, err := f.client.Plan(ctx, request)
		if err != nil {
			return err
		}
		if answer.Diagnostics.HasErrors() {
			if err := f.print(answer, func() error { return answer.Diagnostics.Render(e.stdout) }); err != nil {
				return err
			}
			return errSaid
		}
		if err := f.print(answer, func() error { return renderPlan(e.stdout, answer) }); err != nil {
			return err
		}
		if *exitCode && len(answer.Steps) > 0 {
			return errChanges
		}
		return nil
	}
	return v
}

// renderPlan writes the steps, below them what the guests are given more of than there is, and what an operator may want to do besides.
func renderPlan(w io.Writer, p api.Plan) error {
	if err := plan.Render(w, p.Steps); err != nil {
		return err
	}
	for _, over := range p.Given.Over() {
		if _, err := fmt.Fprintln(w, "! "+over); err != nil {
			return err
		}
	}
	for _, note := range p.Notes {
		if _, err := fmt.Fprintln(w, "note: "+note); err != nil {
			return err
		}
	}
	return nil
}

func readFiles(dir string) ([]api.File, error) {
	files, err := policy.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("read %s: no *.yaml file there", dir)
	}
	var out []api.File
	for _, f := range files {
		out = append(out, api.File{Name: f.Name, Data: string(f.Data)})
	}
	return out, nil
}
