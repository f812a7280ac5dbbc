package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/bladenet/bladenet/test/lab"
)

func up(ctx context.Context, env environment, args []string) error {
	set, name := flags(env, "up")
	o := lab.Options{Log: env.stderr}
	set.IntVar(&o.Blades, "blades", 1, "how many of the fleet's blades")
	set.StringVar(&o.Fleet, "fleet", "", "folder of policy files (default test/fleets/one-blade)")
	set.BoolVar(&o.Agent, "agent", false, "start bladed on each blade")
	set.BoolVar(&o.Systemd, "systemd", false, "let systemd be the first process, with the blade's services from their packages")
	set.IntVar(&o.Memory, "memory", 6144, "memory of the machine, in MiB")
	set.IntVar(&o.CPUs, "cpus", 0, "processors of the machine; 0: one when it is emulated, else two")
	set.StringVar(&o.Images, "images", "", "base images of guests (default build/images)")
	set.StringVar(&o.Source, "source", "", "the repository (default: found from the working folder)")
	set.BoolVar(&o.Keep, "keep", false, "leave a machine that did not become ready running")
	set.DurationVar(&o.TTL, "ttl", 0, "when the lab ends by itself (default 3h)")
	set.DurationVar(&o.Limit, "limit", 0, "how long the start may take (default 5m)")
	if err := parse(set, args); err != nil {
		return err
	}
	if set.NArg() > 0 {
		return fmt.Errorf("up takes no %q: %w", set.Arg(0), errUsage)
	}
	o.Name = *name
	_, err := lab.Up(ctx, o)
	return err
}

func down(_ context.Context, env environment, args []string) error {
	set, name := flags(env, "down")
	if err := parse(set, args); err != nil {
		return err
	}
	return lab.Down(*name)
}

func reboot(ctx context.Context, env environment, args []string) error {
	set, name := flags(env, "reboot")
	if err := parse(set, args); err != nil {
		return err
	}
	l, err := lab.Open(*name)
	if err != nil {
		return err
	}
	return l.Reboot(ctx, env.stderr)
}

func image(ctx context.Context, env environment, args []string) error {
	set, _ := flags(env, "image")
	if err := parse(set, args); err != nil {
		return err
	}
	i, err := lab.EnsureImage(ctx, env.stderr)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.stdout, i.Dir)
	return err
}

func list(_ context.Context, env environment, args []string) error {
	set, _ := flags(env, "list")
	if err := parse(set, args); err != nil {
		return err
	}
	labs, err := lab.List()
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tSTATE\tBLADES\tACCEL\tAGE\tLEFT\tFLEET")
	for _, l := range labs {
		state := "up"
		if !l.Alive {
			state = "ended"
			if l.Reason != "" {
				state += ": " + l.Reason
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%v\t%v\t%s\n", l.Name, state, strings.Join(l.Blades, ","), l.Accel, l.Age, l.Left, l.Fleet)
	}
	return out.Flush()
}
