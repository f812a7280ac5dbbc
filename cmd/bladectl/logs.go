package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"unicode"

	"github.com/bladenet/bladenet/hostagent/api"
)

func logsVerb() verb {
	v := verb{name: "logs", args: "GUEST", brief: "Show what a guest has printed on its console", example: "bladectl logs --follow dir-l"}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket()
		var r api.LogRequest
		f.IntVar(&r.Lines, "n", 40, "how many of the last lines; 0 means all that are kept")
		f.BoolVar(&r.Follow, "follow", false, "go on with what comes")
		raw := f.Bool("raw", false, "leave what steers a terminal as the guest wrote it")
		words, err := f.parse(args, 1, 1)
		if err != nil {
			return err
		}
		if r.Name, err = guestName(words[0]); err != nil {
			return err
		}
		return f.client.Log(ctx, r, func(log io.Reader) error {
			if *raw {
				_, err := io.Copy(e.stdout, log)
				return err
			}
			return printClean(e.stdout, log)
		})
	}
	return v
}

// printClean copies text a line or a pause at a time without what could steer a terminal.
func printClean(w io.Writer, r io.Reader) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for {
		c, _, err := in.ReadRune()
		if err != nil {
			err = errors.Join(err, out.Flush())
			if errors.Is(err, io.EOF) {
				return out.Flush()
			}
			return err
		}
		switch {
		case c == '\n' || c == '\t' || unicode.IsPrint(c):
			_, _ = out.WriteRune(c) // Flush returns its error
		case c != '\r':
			_, _ = out.WriteRune('?')
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}
