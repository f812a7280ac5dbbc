package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

func explainVerb() verb {
	v := verb{
		name: "explain", args: "FROM TO PORT/PROTO|icmp  |  explain --live VIP|GUEST", brief: "Say which rule decides a packet on every blade on its way, and the policy line behind it",
		example: "bladectl explain 198.18.0.7 203.0.113.10 443/tcp",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		dir := f.String("policy", DefaultPolicy, "`folder` of policy files")
		as := f.String("as", "", "source `address` to use instead of FROM's own")
		flags := f.String("flags", "", "TCP `flags`: syn or syn,ack (default: a new connection's first packet)")
		port := f.Int("source-port", 0, "source port (default: an ephemeral one)")
		var l live
		f.StringVar(&l.target, "live", "", "follow real packets of a `VIP` or a guest of this blade instead")
		f.DurationVar(&l.limit, "for", 0, "with --live: how long (default 10s)")
		f.IntVar(&l.packets, "packets", 0, "with --live: how many (default 20)")
		f.BoolVar(&l.steps, "steps", false, "with --live: show every rule on a packet's way")
		words, err := f.parse(args, 0, 3)
		switch {
		case err != nil:
			return err
		case l.target != "" && len(words) == 0:
			return explainLive(ctx, f, l)
		case l.target != "" || len(words) != 3:
			f.Usage()
			return errUsage
		}
		q := question{From: words[0], To: []string{words[1], words[2]}, As: *as, Flags: *flags, SourcePort: *port, Verdict: "accept"}
		return explain(f, *dir, q)
	}
	return v
}

// question is an expectation as a policy file has it, so that the policy's own parser judges what was typed.
type question struct {
	From       string   `yaml:"from"`
	As         string   `yaml:"as,omitempty"`
	To         []string `yaml:"to"`
	SourcePort int      `yaml:"source-port,omitempty"`
	Flags      string   `yaml:"flags,omitempty"`
	Verdict    string   `yaml:"verdict"`
}

// typed is the name under which what was typed is shown in diagnostics.
const typed = "command-line.yaml"

// explanation is the answer for programs.
type explanation struct {
	Version string `json:"version"`
	Flows   []flow `json:"flows"`
	Answers string `json:"answers,omitempty"` // what lets answers through where no rule does
	Verdict string `json:"verdict"`           // accept, drop, mixed, or unknown where no blade stands between the two
}

// flow is one direction.
type flow struct {
	What string       `json:"what"`
	Ways []filter.Way `json:"ways"`
}

func explain(f *flags, dir string, q question) error {
	text, err := yaml.Marshal(map[string][]question{"expect": {q}})
	if err != nil {
		return fmt.Errorf("encode the question: %w", err)
	}
	files, err := policy.ReadDir(dir)
	if err != nil {
		return err
	}
	fleet, err := fleetOf(f.env, append(files, policy.File{Name: typed, Data: text}))
	if err != nil {
		return err
	}
	var asked policy.Expectation
	for _, x := range fleet.Expectations {
		if x.Pos.File == typed {
			asked = x
		}
	}
	out := answerTo(fleet, asked)
	return f.print(out, func() error { return writeExplanation(f.env.stdout, out) })
}

// answerTo follows the packet, and the answers to it: from a VIP each real server's, straight to who asked.
func answerTo(fleet *policy.Fleet, x policy.Expectation) explanation {
	e := filter.NewExplainer(fleet)
	there := e.Explain(x)
	out := explanation{Version: "v1", Verdict: "mixed", Flows: []flow{{What: fmt.Sprintf("%s to %s", x.From, x.To), Ways: there.Ways}}}
	switch {
	case len(there.Ways) == 0:
		out.Verdict = "unknown"
	case there.Accepted():
		out.Verdict = string(policy.Accept)
	case there.Dropped():
		out.Verdict = string(policy.Drop)
	}
	servers := serversOf(fleet, x)
	if !there.Accepted() {
		return out
	}
	if len(servers) == 0 {
		out.Answers = "connection tracking lets the answers through, by the same ways"
	}
	for _, s := range servers {
		back := policy.Expectation{
			From: policy.Endpoint{Guest: s}, As: x.To.Address, To: x.From, Protocol: x.Protocol, SourcePort: x.Port, Port: 40000,
		}
		if x.Protocol == policy.TCP {
			back.Flags = policy.FlagSYN | policy.FlagACK
		}
		out.Flows = append(out.Flows, flow{What: fmt.Sprintf("the answer of %s", s), Ways: e.Explain(back).Ways})
	}
	return out
}

// serversOf lists the real servers that answer for a VIP and port; none when the target is no VIP.
func serversOf(fleet *policy.Fleet, x policy.Expectation) []policy.GuestName {
	for _, b := range fleet.Blades {
		blade, err := policy.Derive(fleet, b.Name)
		if err != nil {
			continue
		}
		for _, s := range blade.Services {
			for _, vip := range s.VIPs {
				if vip != x.To.Address {
					continue
				}
				for _, p := range s.Ports {
					if p.Protocol == x.Protocol && p.First <= x.Port && x.Port <= p.Last {
						return s.Servers
					}
				}
			}
		}
	}
	return nil
}

func writeExplanation(w io.Writer, x explanation) error {
	for _, f := range x.Flows {
		fmt.Fprintln(w, f.What)
		if len(f.Ways) == 0 {
			fmt.Fprintln(w, "  no blade stands between the two")
		}
		for i, way := range f.Ways {
			if len(f.Ways) > 1 {
				fmt.Fprintf(w, "way %d of %d\n", i+1, len(f.Ways))
			}
			for _, h := range way.Hops {
				verdict := "accept"
				if !h.Verdict.Accept {
					verdict = "drop"
				}
				fmt.Fprintf(w, "  %-10s %-22s %-6s %s", h.Blade, strings.Trim(h.In+" -> "+h.Out, " ->"), verdict, h.Verdict.Rule)
				if h.Verdict.Reason != "" {
					fmt.Fprintf(w, " (%s)", h.Verdict.Reason)
				}
				if h.Verdict.Pos.Line > 0 {
					fmt.Fprintf(w, "  %s", h.Verdict.Pos)
				}
				fmt.Fprintln(w)
			}
		}
	}
	if x.Answers != "" {
		fmt.Fprintln(w, x.Answers)
	}
	_, err := fmt.Fprintln(w, x.Verdict)
	return err
}
