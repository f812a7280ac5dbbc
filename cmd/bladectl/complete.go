package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

func completionVerb() verb {
	v := verb{
		name: "completion", args: "bash|zsh|fish", brief: "Write what makes a shell complete verbs and flags",
		example: "bladectl completion bash >/etc/bash_completion.d/bladectl",
	}
	v.run = func(_ context.Context, e env, args []string) error {
		f := newFlags(e, v)
		words, err := f.parse(args, 1, 1)
		if err != nil {
			return err
		}
		write := map[string]func(io.Writer, []described) error{"bash": writeBash, "zsh": writeZsh, "fish": writeFish}[words[0]]
		if write == nil {
			return fmt.Errorf("completion %s: bash, zsh or fish", words[0])
		}
		return write(e.stdout, describeVerbs())
	}
	return v
}

// described is a verb with its flags.
type described struct {
	verb
	flags []*flag.Flag // by name
}

// describeVerbs asks each verb for its flags.
func describeVerbs() []described {
	var out []described
	for _, v := range verbs() {
		d := described{verb: v}
		e := env{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
		e.describe = func(f *flag.FlagSet) { f.VisitAll(func(x *flag.Flag) { d.flags = append(d.flags, x) }) }
		_ = v.run(context.Background(), e, nil) // ends with errHelp as soon as its flags are known
		out = append(out, d)
	}
	return out
}

// dashed is a flag as people write it.
func dashed(f *flag.Flag) string {
	if len(f.Name) == 1 {
		return "-" + f.Name
	}
	return "--" + f.Name
}

// takesValue says whether a value follows a flag.
func takesValue(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return !ok || !b.IsBoolFlag()
}

// choices are the words that a verb's arguments offer: bash|zsh|fish.
func (d described) choices() []string {
	first, _, _ := strings.Cut(d.args, " ")
	if !strings.Contains(first, "|") {
		return nil
	}
	var out []string
	for word := range strings.SplitSeq(strings.Trim(first, "[]"), "|") {
		if word == strings.ToLower(word) {
			out = append(out, word)
		}
	}
	return out
}

// words are what may follow a verb: its flags and what its arguments offer.
func (d described) words() string {
	out := d.choices()
	for _, f := range d.flags {
		out = append(out, dashed(f))
	}
	return strings.Join(out, " ")
}

func names(all []described) string {
	var out []string
	for _, d := range all {
		out = append(out, d.name)
	}
	return strings.Join(out, " ")
}

func writeBash(w io.Writer, all []described) error {
	var b strings.Builder
	b.WriteString("# Completion of bladectl for bash. Made by: bladectl completion bash\n_bladectl() {\n")
	b.WriteString("\tlocal word=${COMP_WORDS[COMP_CWORD]} words\n")
	fmt.Fprintf(&b, "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\twords=\"help %s\"\n\telse\n\t\tcase ${COMP_WORDS[1]} in\n", names(all))
	for _, d := range all {
		fmt.Fprintf(&b, "\t\t%s) words=\"%s\" ;;\n", d.name, d.words())
	}
	b.WriteString("\t\tesac\n\tfi\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\ncomplete -o default -F _bladectl bladectl\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// plain leaves out what would end a quoted string or a description of zsh and fish.
func plain(s string) string {
	return strings.NewReplacer("'", "", "[", "(", "]", ")", "`", "").Replace(s)
}

func writeZsh(w io.Writer, all []described) error {
	var b strings.Builder
	b.WriteString("#compdef bladectl\n# Made by: bladectl completion zsh\n_bladectl() {\n\tlocal -a verbs\n\tverbs=(\n")
	for _, d := range all {
		fmt.Fprintf(&b, "\t\t'%s:%s'\n", d.name, strings.ReplaceAll(plain(d.brief), ":", "\\:"))
	}
	b.WriteString("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe verb verbs\n\t\treturn\n\tfi\n\tcase $words[2] in\n")
	for _, d := range all {
		fmt.Fprintf(&b, "\t%s) _arguments", d.name)
		for _, f := range d.flags {
			value := ""
			if takesValue(f) {
				value = ":value:_files"
			}
			fmt.Fprintf(&b, " '%s[%s]%s'", dashed(f), plain(f.Usage), value)
		}
		b.WriteString(" '*:argument:_files' ;;\n")
	}
	b.WriteString("\tesac\n}\n_bladectl \"$@\"\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func writeFish(w io.Writer, all []described) error {
	var b strings.Builder
	b.WriteString("# Made by: bladectl completion fish\n")
	for _, d := range all {
		fmt.Fprintf(&b, "complete -c bladectl -n __fish_use_subcommand -f -a %s -d '%s'\n", d.name, plain(d.brief))
	}
	for _, d := range all {
		here := fmt.Sprintf("complete -c bladectl -n '__fish_seen_subcommand_from %s'", d.name)
		for _, word := range d.choices() {
			fmt.Fprintf(&b, "%s -f -a %s\n", here, word)
		}
		for _, f := range d.flags {
			kind := "-l"
			if len(f.Name) == 1 {
				kind = "-s"
			}
			value := ""
			if takesValue(f) {
				value = " -r"
			}
			fmt.Fprintf(&b, "%s %s %s%s -d '%s'\n", here, kind, f.Name, value, plain(f.Usage))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
