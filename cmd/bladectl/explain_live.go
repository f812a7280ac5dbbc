package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

// live is what explain --live was told.
type live struct {
	target  string
	limit   time.Duration
	packets int
	steps   bool // show every rule on the way
}

// explainLive prints packets as they come: for people a line each, for programs a JSON document each.
func explainLive(ctx context.Context, f *flags, l live) error {
	if f.output == "yaml" {
		fmt.Fprintln(f.env.stderr, "bladectl: --live writes text or json")
		return errUsage
	}
	shown := 0
	enc := json.NewEncoder(f.env.stdout)
	r := api.TraceRequest{Target: l.target, For: l.limit, Packets: l.packets}
	err := f.client.Trace(ctx, r, func(e api.Event) {
		if e.Message != "" && !e.Done {
			fmt.Fprintln(f.env.stderr, e.Message)
		}
		if e.Packet == nil {
			return
		}
		shown++
		if f.output == "json" {
			_ = enc.Encode(e.Packet) // a reader that went away ends the command by SIGPIPE
			return
		}
		writePacket(f.env.stdout, *e.Packet, l.steps)
	})
	if ctx.Err() != nil {
		err = nil // stopped by the user
	}
	if err == nil && shown == 0 {
		fmt.Fprintf(f.env.stderr, "no packet of %s came by\n", l.target)
	}
	return err
}

func writePacket(w io.Writer, p api.TracedPacket, steps bool) {
	fmt.Fprintf(w, "%-6s %-26s %s", p.Verdict, strings.Trim(p.In+" -> "+p.Out, " ->"), p.Packet)
	if p.Rule != "" {
		fmt.Fprintf(w, "  %s", p.Rule)
	}
	if p.Reason != "" {
		fmt.Fprintf(w, " (%s)", p.Reason)
	}
	if p.Pos != "" {
		fmt.Fprintf(w, "  %s", p.Pos)
	}
	fmt.Fprintln(w)
	for _, s := range p.Steps {
		if !steps {
			break
		}
		rule := s.Rule
		if rule == "" {
			rule = "(end of the chain)"
		}
		fmt.Fprintf(w, "         %-20s %-18s %s\n", s.Chain, s.Verdict, rule)
	}
}
