package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

func topVerb() verb {
	v := verb{name: "top", args: "", brief: "Show what each real server has to do, again and again", example: "bladectl top --every 5s"}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket()
		every := f.Duration("every", 2*time.Second, "time between two looks")
		times := f.Int("n", 0, "how many looks; 0: until it is interrupted")
		if _, err := f.parse(args, 0, 0); err != nil {
			return err
		}
		if *every < 100*time.Millisecond {
			return fmt.Errorf("top: every %v: 100ms at least", *every)
		}
		clear := ""
		if e.stdout == os.Stdout && isTerminal(os.Stdout) {
			clear = "\x1b[H\x1b[2J"
		}
		return top(ctx, e.stdout, f.client, *every, *times, clear)
	}
	return v
}

// top shows a table a look, with what clears the screen before each. The first look comes after the directors had time to count.
func top(ctx context.Context, w io.Writer, client *api.Client, every time.Duration, times int, clear string) error {
	if _, err := client.Top(ctx); err != nil {
		return err
	}
	for look := 1; ; look++ {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
		s, err := client.Top(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if _, err := io.WriteString(w, clear); err != nil {
			return err
		}
		if err := writeTop(w, s); err != nil {
			return err
		}
		if look == times {
			return nil
		}
	}
}

// writeTop writes a line a real server, the busiest of each service first.
func writeTop(w io.Writer, s api.Status) error {
	fmt.Fprintf(w, "blade %s  revision %d\n", s.Blade, s.Revision)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tVIP\tPORT\tDIRECTOR\tREAL SERVER\tWEIGHT\tACTIVE\tINACTIVE\tNEW/s\tPACKETS/s\tBYTES/s\tSTATE")
	for _, x := range s.Services {
		for _, d := range slices.SortedStableFunc(slices.Values(x.Destinations), func(a, b api.Destination) int {
			return cmp.Or(cmp.Compare(b.NewRate, a.NewRate), cmp.Compare(b.Active, a.Active))
		}) {
			state := "up"
			if !d.Up {
				state = cmp.Or(d.Reason, "down")
			}
			fmt.Fprintf(t, "%s\t%s\t%d/%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", x.Service, x.VIP, x.Port, x.Protocol, x.Director,
				d.Guest, d.Weight, d.Active, d.Inactive, d.NewRate, d.Packets, d.Bytes, state)
		}
	}
	return t.Flush()
}
