package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/bladenet/bladenet/hostagent/api"
)

// DefaultPolicy is the folder of policy files where none is named.
const DefaultPolicy = "/etc/bladenet"

// flags is a verb's flag set with the flags that several verbs share.
type flags struct {
	*flag.FlagSet
	env     env
	socket  string
	remote  remote
	client  *api.Client // of whom the verb asks, once the arguments are parsed
	output  string
	verbose bool
}

func newFlags(e env, v verb) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(v.name, flag.ContinueOnError), env: e}
	f.SetOutput(e.stderr)
	f.Usage = func() {
		fmt.Fprintf(e.stderr, "usage: bladectl %s %s\n\n%s.\n\n", v.name, v.args, v.brief)
		f.PrintDefaults()
		if v.example != "" {
			fmt.Fprintf(e.stderr, "\nexample: %s\n", v.example)
		}
	}
	return f
}

func (f *flags) withSocket() *flags {
	def := f.env.getenv("BLADENET_SOCKET")
	if def == "" {
		def = api.DefaultSocket
	}
	f.StringVar(&f.socket, "socket", def, "Unix `path` of bladed's socket")
	f.remote.flags(f.FlagSet, f.env.getenv)
	return f
}

func (f *flags) withOutput() *flags {
	f.StringVar(&f.output, "o", "text", "output `format`: text, json or yaml")
	return f
}

func (f *flags) withVerbose() *flags {
	f.BoolVar(&f.verbose, "v", false, "show every step instead of a line a stage")
	return f
}

// parse reads the arguments, flags and words in any order, and returns the words. It wants from min to max of them.
func (f *flags) parse(args []string, minWords, maxWords int) ([]string, error) {
	if f.env.describe != nil {
		f.env.describe(f.FlagSet)
		return nil, errHelp
	}
	var words []string
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, errHelp
			}
			return nil, errUsage
		}
		args = f.Args()
		if len(args) > 0 {
			words, args = append(words, args[0]), args[1:]
		}
	}
	if len(words) < minWords || len(words) > maxWords {
		f.Usage()
		return nil, errUsage
	}
	switch f.output {
	case "", "text", "json", "yaml":
	default:
		fmt.Fprintf(f.env.stderr, "bladectl: -o %s: text, json or yaml\n", f.output)
		return nil, errUsage
	}
	return words, f.connect()
}

// parseCommand reads flags, one word and a command, whose words are its own even when they look like flags.
func (f *flags) parseCommand(args []string) ([]string, error) {
	if f.env.describe != nil {
		f.env.describe(f.FlagSet)
		return nil, errHelp
	}
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, errHelp
	} else if err != nil {
		return nil, errUsage
	}
	words := f.Args()
	if len(words) > 1 && words[1] == "--" {
		words = slices.Delete(words, 1, 2)
	}
	if len(words) < 2 {
		f.Usage()
		return nil, errUsage
	}
	return words, f.connect()
}

// print writes v as JSON or YAML, or calls text for people.
func (f *flags) print(v any, text func() error) error {
	switch f.output {
	case "json":
		enc := json.NewEncoder(f.env.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		return yaml.NewEncoder(f.env.stdout, yaml.UseJSONMarshaler()).Encode(v)
	}
	return text()
}
