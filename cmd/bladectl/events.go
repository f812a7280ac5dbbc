package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/bladenet/bladenet/hostagent/api"
)

func eventsVerb() verb {
	v := verb{
		name: "events", args: "", brief: "Show what the agent did and saw",
		example: "bladectl events --follow --kind repaired,fight",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		follow := f.Bool("follow", false, "go on with events as they come")
		last := f.Int("n", 40, "how many of the last events; 0 means all that are kept")
		after := f.Uint64("after", 0, "only events after the one with this number")
		kinds := f.String("kind", "", "only these `kinds`, joined by commas: agent, revision, applied, repaired, waiting, settled, guest, rotation, fight")
		if _, err := f.parse(args, 0, 0); err != nil {
			return err
		}
		wanted := map[api.EntryKind]bool{}
		for k := range strings.SplitSeq(*kinds, ",") {
			wanted[api.EntryKind(k)] = k != ""
		}
		all := *kinds == ""
		show := func(x api.Entry) error {
			if !all && !wanted[x.Kind] {
				return nil
			}
			return f.printEntry(x)
		}
		return journal(ctx, f.client, api.EventsRequest{After: *after, Follow: *follow}, *last, show)
	}
	return v
}

// journal shows the last entries there are, and with Follow those that come.
func journal(ctx context.Context, client *api.Client, r api.EventsRequest, last int, show func(api.Entry) error) error {
	var there []api.Entry
	err := client.Events(ctx, api.EventsRequest{After: r.After}, func(e api.Entry) error {
		there = append(there, e)
		return nil
	})
	if err != nil {
		return err
	}
	if n := len(there); n > 0 {
		r.After = there[n-1].Number
		if last > 0 {
			there = there[max(0, n-last):]
		}
	}
	for _, e := range there {
		if err := show(e); err != nil {
			return err
		}
	}
	if !r.Follow {
		return nil
	}
	return client.Events(ctx, r, show)
}

// printEntry prints one entry as a document or a line of its own, at once.
func (f *flags) printEntry(e api.Entry) error {
	switch f.output {
	case "json":
		return json.NewEncoder(f.env.stdout).Encode(e)
	case "yaml":
		if _, err := io.WriteString(f.env.stdout, "---\n"); err != nil {
			return err
		}
		return yaml.NewEncoder(f.env.stdout, yaml.UseJSONMarshaler()).Encode(e)
	}
	_, err := fmt.Fprintln(f.env.stdout, entryLine(e))
	return err
}

func entryLine(e api.Entry) string {
	words := []string{e.Time.Format("2006-01-02 15:04:05"), fmt.Sprintf("%-8s", e.Kind)}
	add := func(text string) {
		if text != "" {
			words = append(words, text)
		}
	}
	if e.Kind == api.Revised && e.Revision > 0 {
		add(fmt.Sprintf("revision %d", e.Revision))
	}
	add(e.Subsystem)
	add(string(e.Verb))
	add(e.Object)
	if e.Guest != "" && !strings.Contains(e.Object, e.Guest) {
		add(e.Guest)
	}
	if e.Message != "" {
		add("(" + strings.ReplaceAll(e.Message, "\n", "\n    ") + ")")
	}
	return strings.Join(words, " ")
}
