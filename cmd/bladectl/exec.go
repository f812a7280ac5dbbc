package main

import (
	"context"
	"fmt"
	"os"

	"github.com/bladenet/bladenet/hostagent/api"
)

func execVerb() verb {
	v := verb{name: "exec", args: "GUEST COMMAND...", brief: "Run a command in a container, in a terminal where there is one", example: "bladectl exec www-l3 -- nginx -t"}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket()
		words, err := f.parseCommand(args)
		if err != nil {
			return err
		}
		name, err := guestName(words[0])
		if err != nil {
			return err
		}
		r := api.ExecRequest{Name: name, Command: words[1:]}
		files := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
		run := f.client.Exec
		var status int
		if isTerminal(os.Stdin) && isTerminal(os.Stdout) {
			r.Term = e.getenv("TERM")
			status, err = inTerminal(os.Stdin, func(files [3]*os.File) (int, error) { return run(ctx, r, files) })
		} else {
			status, err = run(ctx, r, files)
		}
		if err != nil {
			return fmt.Errorf("exec in %s: %w", name, err)
		}
		if status != 0 {
			return exitStatus(status)
		}
		return nil
	}
	return v
}
