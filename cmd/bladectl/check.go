package main

import (
	"context"
	"fmt"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

func checkVerb() verb {
	v := verb{
		name: "check", args: "[DIR]", brief: "Check policy files and their expectations, offline",
		example: "bladectl check /etc/bladenet",
	}
	v.run = func(_ context.Context, e env, args []string) error {
		f := newFlags(e, v).withOutput()
		words, err := f.parse(args, 0, 1)
		if err != nil {
			return err
		}
		dir := DefaultPolicy
		if len(words) == 1 {
			dir = words[0]
		}
		return check(f, dir)
	}
	return v
}

// check loads a folder and judges its expectations; the diagnostics are the result, so they go to stdout.
func check(f *flags, dir string) error {
	files, err := policy.ReadDir(dir)
	if err != nil {
		return err
	}
	fleet, found := policy.Load(files)
	if !found.HasErrors() {
		found = append(found, filter.CheckExpectations(fleet)...)
	}
	err = f.print(found, func() error {
		if err := found.Render(f.env.stdout); err != nil || found.HasErrors() {
			return err
		}
		_, err := fmt.Fprintf(f.env.stdout, "%s: %d files, %d blades, %d services, %d directors, %d real servers, %d expectations hold\n", dir,
			len(files), len(fleet.Blades), len(fleet.Services), len(fleet.Directors), len(fleet.RealServers), len(fleet.Expectations))
		return err
	})
	if err != nil {
		return err
	}
	if found.HasErrors() {
		return errSaid
	}
	return nil
}

// fleetOf loads files for a verb that needs a policy without mistakes; those it has are the verb's result.
func fleetOf(e env, files []policy.File) (*policy.Fleet, error) {
	fleet, found := policy.Load(files)
	if !found.HasErrors() {
		return fleet, nil
	}
	if err := found.Render(e.stdout); err != nil {
		return nil, err
	}
	return nil, errSaid
}
