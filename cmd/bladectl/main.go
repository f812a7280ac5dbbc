// Command bladectl is what operators type: it checks and plans policy, and asks bladed to make it so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses. A plan with --exit-code answers exitChanges when something would change.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitChanges = 2
)

// env is what a verb may touch of the world around it, so that tests run verbs in process.
type env struct {
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string

	// describe is told a verb's flags instead of the verb being run, for pages and completions; usually nil.
	describe func(*flag.FlagSet)
}

// verb is one word of the command line.
type verb struct {
	name    string
	args    string // how its arguments are written in the usage line
	brief   string // one line
	example string // a line that works
	run     func(ctx context.Context, e env, args []string) error
}

func verbs() []verb {
	return []verb{
		checkVerb(), planVerb(), applyVerb(), confirmVerb(), rollbackVerb(), revisionsVerb(),
		statusVerb(), eventsVerb(), doctorVerb(), spawnVerb(), startVerb(), stopVerb(), restartVerb(), drainVerb(), undrainVerb(), destroyVerb(),
		topVerb(), execVerb(), consoleVerb(), logsVerb(), supportVerb(),
		explainVerb(), renderVerb(), fmtVerb(), initVerb(), imageVerb(), completionVerb(), manVerb(),
	}
}

// How a verb ends when everything there is to say has been printed already.
var (
	errHelp    = errors.New("help was asked for")
	errChanges = errors.New("changes wait") // plan --exit-code
	errUsage   = errors.New("wrong words")
	errSaid    = errors.New("said already")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}, os.Args[1:]))
}

func run(ctx context.Context, e env, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		usage(e.stdout)
		return exitOK
	}
	for _, v := range verbs() {
		if v.name == args[0] {
			return status(e, v.run(ctx, e, args[1:]))
		}
	}
	fmt.Fprintf(e.stderr, "bladectl: unknown verb %q\n\n", args[0])
	usage(e.stderr)
	return exitUsage
}

// status turns a verb's error into an exit status and says what has not been said yet.
func status(e env, err error) int {
	var own exitStatus
	switch {
	case errors.As(err, &own):
		return int(own)
	case err == nil, errors.Is(err, errHelp):
		return exitOK
	case errors.Is(err, errChanges):
		return exitChanges
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errSaid):
		return exitError
	}
	fmt.Fprintf(e.stderr, "bladectl: %v\n", err)
	return exitError
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "bladectl asks the network agent of a blade. Verbs:")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-9s %-34s %s\n", v.name, v.args, v.brief)
	}
	fmt.Fprintln(w, "\n`bladectl VERB --help` shows the flags of a verb and an example.")
}
