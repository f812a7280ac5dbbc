package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
)

func fmtVerb() verb {
	v := verb{
		name: "fmt", args: "[FILE|DIR...]", brief: "Write policy files in canonical style; comments are kept",
		example: "bladectl fmt --diff-only /etc/bladenet",
	}
	v.run = func(_ context.Context, e env, args []string) error {
		f := newFlags(e, v)
		list := f.Bool("diff-only", false, "list the files that are not in canonical style and change nothing; status 1 if there are any")
		words, err := f.parse(args, 0, 1000)
		if err != nil {
			return err
		}
		if len(words) == 0 {
			words = []string{DefaultPolicy}
		}
		var files []policy.File
		for _, word := range words {
			some, err := policyFiles(word)
			if err != nil {
				return err
			}
			files = append(files, some...)
		}
		return format(e, files, *list)
	}
	return v
}

// policyFiles reads one file, or all of a folder.
func policyFiles(path string) ([]policy.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return policy.ReadDir(path)
	}
	data, err := os.ReadFile(path)
	return []policy.File{{Name: path, Data: data}}, err
}

// format formats all files before it writes the first: a mistake in one leaves all as they are.
func format(e env, files []policy.File, list bool) error {
	var changed []policy.File
	for _, file := range files {
		formatted, err := policy.Format(file)
		if err != nil {
			return err
		}
		if string(formatted.Data) != string(file.Data) {
			changed = append(changed, formatted)
		}
	}
	for _, file := range changed {
		if !list {
			if err := revision.WriteFile(file.Name, file.Data, 0o644); err != nil {
				return fmt.Errorf("write %s: %w", file.Name, err)
			}
		}
		fmt.Fprintln(e.stdout, filepath.Clean(file.Name))
	}
	if list && len(changed) > 0 {
		return errSaid
	}
	return nil
}
