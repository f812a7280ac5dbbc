package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/bladenet/bladenet/hostagent/api"
)

// escapeKey leaves a console: Ctrl-], as in telnet and virsh.
const escapeKey = 0x1d

func consoleVerb() verb {
	v := verb{name: "console", args: "GUEST", brief: "Join a guest's console; Ctrl-] leaves it", example: "bladectl console dir-l"}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket()
		lines := f.Int("n", 10, "how many of the last lines to begin with")
		words, err := f.parse(args, 1, 1)
		if err != nil {
			return err
		}
		name, err := guestName(words[0])
		if err != nil {
			return err
		}
		c := api.NewClient(f.socket)
		if *lines > 0 {
			show := func(log io.Reader) error { return printClean(e.stdout, log) }
			_ = c.Log(ctx, api.LogRequest{Name: name, Lines: *lines}, show) // a guest that has printed nothing has a console, too
		}
		fmt.Fprintf(e.stderr, "[console of %s: Ctrl-] leaves it. Images have no login: what is typed is heard by nobody unless its program reads it; "+
			"in a container `bladectl exec %s sh` is a shell]\n", name, name)
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		join := func(files [3]*os.File) (int, error) {
			return 0, c.Console(ctx, api.ConsoleRequest{Name: name}, files)
		}
		if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
			_, err = join([3]*os.File{os.Stdin, os.Stdout, os.Stderr})
		} else {
			left := false
			_, err = inTerminal(untilEscape{os.Stdin, func() { left = true; leave() }}, rawly(join))
			if left {
				fmt.Fprintln(e.stderr)
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("console of %s: %w", name, err)
		}
		return nil
	}
	return v
}

// rawly runs with a pseudoterminal that hands every key on as it is: the console's own is at the guest's end.
func rawly(run func(files [3]*os.File) (int, error)) func(files [3]*os.File) (int, error) {
	return func(files [3]*os.File) (int, error) {
		if _, err := makeRaw(files[0]); err != nil {
			return 0, err
		}
		return run(files)
	}
}

// untilEscape reads keys up to the escape key, and says that it came.
type untilEscape struct {
	keys io.Reader
	left func()
}

func (u untilEscape) Read(p []byte) (int, error) {
	n, err := u.keys.Read(p)
	if i := bytes.IndexByte(p[:n], escapeKey); i >= 0 {
		u.left()
		return i, io.EOF
	}
	return n, err
}
