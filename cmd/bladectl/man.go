package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

func manVerb() verb {
	v := verb{
		name: "man", args: "", brief: "Write the manual page of bladectl",
		example: "bladectl man | man -l -",
	}
	v.run = func(_ context.Context, e env, args []string) error {
		if _, err := newFlags(e, v).parse(args, 0, 0); err != nil {
			return err
		}
		return writeMan(e.stdout, describeVerbs())
	}
	return v
}

// roff escapes what man(7) reads otherwise: backslashes, hyphens that are typed, and a dot at the start of a line.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", "").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func writeMan(w io.Writer, all []described) error {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say(`.TH BLADECTL 8 "" "bladenet" "Bladenet"`)
	say(".SH NAME\nbladectl \\- ask the network agent of a blade")
	say(".SH SYNOPSIS\n.B bladectl\n.I VERB\n.RI [ ARGUMENTS ]")
	say(".SH DESCRIPTION\nbladectl checks and plans policy, and asks\n.BR bladed (8)\nto make it so.")
	say(".SH VERBS")
	for _, d := range all {
		say(".SS %s %s", roff(d.name), roff(d.args))
		say("%s.", roff(d.brief))
		for _, f := range d.flags {
			name, usage := flag.UnquoteUsage(f)
			say(".TP\n.B %s\n%s", strings.TrimSpace(roff(dashed(f))+" "+roff(name)), roff(usage))
		}
		say(".PP\nExample:\n.EX\n%s\n.EE", roff(d.example))
	}
	say(".SH EXIT STATUS\n0 all went well, 1 an error, 2 wrong words, or changes that wait (plan \\-\\-exit\\-code).")
	say("With status \\-\\-nagios: 0 all is well, 1 warning, 2 critical.")
	say(".SH FILES\n.TP\n.I /etc/bladenet\npolicy files\n.TP\n.I /run/bladenet/bladed.sock\nwhere bladed listens; members of group bladenet may speak with it")
	say(".SH SEE ALSO\n.BR bladed (8)")
	_, err := io.WriteString(w, b.String())
	return err
}
