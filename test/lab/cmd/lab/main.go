// Command lab is a blade in a virtual machine: it starts one, runs commands in it and removes it.
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

	"github.com/bladenet/bladenet/test/lab"
	"github.com/bladenet/bladenet/test/lab/guest"
)

const usage = `A blade in a virtual machine, with a router and a user beside it.

  lab up    [--name N] [--blades N] [--fleet DIR] [--agent | --systemd] [--memory MiB] [--images DIR] [--ttl 3h]
  lab exec  [--name N] [--in blade|router|client|NAME] [--dir DIR] -- COMMAND [ARGS...]
  lab shell [--name N] [--in ...]
  lab test  [--name N] [--in ...] [--run REGEX] [--env KEY=VALUE] PACKAGE... [-- FLAGS]    build kernel tests, run them in the machine
  lab reboot [--name N]                            let systemd restart the machine; its disk stays
  lab down  [--name N]
  lab list
  lab image                                        build the machine's disk only

Two labs run at once under two names; LAB_NAME is the default name. LAB_ACCEL=tcg|kvm overrides the choice of accelerator.
Example:  lab up && lab exec --in client -- ping -c 1 198.18.0.1; lab down
`

// environment is what a verb works with.
type environment struct {
	stdin          *os.File
	stdout, stderr io.Writer
}

// errUsage makes the status 2.
var errUsage = errors.New("see lab help")

// status is a command's own status, passed on as ours.
type status int

func (s status) Error() string { return fmt.Sprintf("status %d", int(s)) }

func main() {
	if os.Getpid() == 1 {
		guest.Init()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, environment{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	var passed status
	switch {
	case errors.As(err, &passed):
		os.Exit(int(passed))
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// run runs one verb.
func run(ctx context.Context, env environment, args []string) error {
	verbs := map[string]func(context.Context, environment, []string) error{
		"up": up, "exec": execute, "shell": shell, "down": down, "list": list, "image": image, "test": test, "reboot": reboot,
		// Not for people: the other ends of a lab.
		"supervise": internal(1, func(args []string) error { return lab.Supervise(args[0]) }),
		"agent":     internal(0, func([]string) error { return guest.Agent() }),
		"space":     internal(2, func(args []string) error { return guest.Space(args[0], args[1]) }),
	}
	if len(args) == 0 {
		fmt.Fprint(env.stderr, usage)
		return errUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Fprint(env.stdout, usage)
		return nil
	}
	verb, ok := verbs[args[0]]
	if !ok {
		return fmt.Errorf("no verb %q: %w", args[0], errUsage)
	}
	return verb(ctx, env, args[1:])
}

// internal makes a verb that only the lab itself uses, with n arguments.
func internal(n int, do func(args []string) error) func(context.Context, environment, []string) error {
	return func(_ context.Context, _ environment, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%d arguments, want %d: %w", len(args), n, errUsage)
		}
		return do(args)
	}
}

// flags makes a verb's flag set with the flag that every verb has.
func flags(env environment, verb string) (*flag.FlagSet, *string) {
	set := flag.NewFlagSet("lab "+verb, flag.ContinueOnError)
	set.SetOutput(env.stderr)
	return set, set.String("name", lab.DefaultName(), "name of the lab")
}

// parse reads flags; a mistake is the user's.
func parse(set *flag.FlagSet, args []string) error {
	err := set.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	return err
}
