package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

// window adds the flag for what returns by itself.
func (f *flags) window() *time.Duration {
	return f.Duration("confirm", 0, "return by itself unless somebody confirms within this `time` (2m)")
}

func confirmVerb() verb {
	v := verb{
		name: "confirm", args: "[REVISION]", brief: "Keep what `apply --confirm` made",
		example: "bladectl confirm",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		number, err := f.number(args)
		if err != nil {
			return err
		}
		done, err := f.client.Confirm(ctx, api.ConfirmRequest{Revision: number})
		if err != nil {
			return err
		}
		return f.print(done, func() error {
			_, err := fmt.Fprintf(e.stdout, "revision %d is confirmed\n", done.Revision)
			return err
		})
	}
	return v
}

func rollbackVerb() verb {
	v := verb{
		name: "rollback", args: "[REVISION]", brief: "Return to an earlier revision; the policy folder stays as it is",
		example: "bladectl rollback 6",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		confirm := f.window()
		number, err := f.number(args)
		if err != nil {
			return err
		}
		see := f.events()
		return see.end(f.client.Rollback(ctx, api.RollbackRequest{Revision: number, Confirm: *confirm}, see.event))
	}
	return v
}

func revisionsVerb() verb {
	v := verb{
		name: "revisions", args: "[REVISION]", brief: "List revisions, or show the files of one",
		example: "bladectl revisions 6 --write /root/policy-6",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		write := f.String("write", "", "write the revision's files into this `folder`, which must not exist")
		number, err := f.number(args)
		if err != nil {
			return err
		}
		client := f.client
		if number == 0 {
			if *write != "" {
				return errors.New("--write: of which revision?")
			}
			list, err := client.Revisions(ctx)
			if err != nil {
				return err
			}
			return f.print(list, func() error { return writeRevisions(e.stdout, list) })
		}
		r, err := client.Revision(ctx, number)
		if err != nil {
			return err
		}
		if *write != "" {
			return writeFiles(*write, r.Files)
		}
		return f.print(r, func() error { return showFiles(e.stdout, r) })
	}
	return v
}

// number parses the arguments of a verb that takes at most the number of a revision; 0: none was given.
func (f *flags) number(args []string) (int, error) {
	words, err := f.parse(args, 0, 1)
	if err != nil || len(words) == 0 {
		return 0, err
	}
	n, err := strconv.Atoi(words[0])
	if err != nil || n < 1 {
		return 0, fmt.Errorf("revision %q: a number: `bladectl revisions` lists them", words[0])
	}
	return n, nil
}

func writeRevisions(w io.Writer, list api.Revisions) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REVISION\tTIME\tSTATE\tGUESTS\tSERVICES\tNOTE")
	for _, r := range list.Revisions {
		guests, services := strconv.Itoa(r.Guests), strconv.Itoa(r.Services)
		if r.Guests < 0 {
			guests, services = "?", "?"
		}
		state := string(r.State)
		if r.State == api.LeftAgain && r.Reason != "" {
			state += " (" + firstLine(r.Reason) + ")"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", r.Number, r.Time.Format("2006-01-02 15:04:05"), state, guests, services, r.Note)
	}
	return t.Flush()
}

func firstLine(text string) string {
	for i, c := range text {
		if c == '\n' {
			return text[:i]
		}
	}
	return text
}

func showFiles(w io.Writer, r api.Revision) error {
	fmt.Fprintf(w, "# revision %d of %s, %s: %s\n", r.Number, r.Time.Format("2006-01-02 15:04:05"), r.State, r.Note)
	for _, f := range r.Files {
		if _, err := fmt.Fprintf(w, "\n# %s\n%s", f.Name, f.Data); err != nil {
			return err
		}
	}
	return nil
}

func writeFiles(dir string, files []api.File) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("write revision: %w", err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), []byte(f.Data), 0o644); err != nil {
			return fmt.Errorf("write revision: %w", err)
		}
	}
	return nil
}
