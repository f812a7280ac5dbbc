package main

import (
	"context"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

func startVerb() verb {
	return powerVerb("start", "Let a stopped guest run again and return when it does its work", false)
}

func stopVerb() verb {
	return powerVerb("stop", "End a guest and keep it stopped, over reboots, until it is started; a real server is drained first", true)
}

func restartVerb() verb {
	return powerVerb("restart", "Stop a guest and start it: a changed definition takes effect", true)
}

func powerVerb(name, brief string, drains bool) verb {
	v := verb{name: name, args: "GUEST", brief: brief, example: "bladectl " + name + " www-l3"}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		var r api.PowerRequest
		if drains {
			f.DurationVar(&r.Drain, "drain", 30*time.Second, "how long a real server may take to end the connections that it has; 0: none")
		}
		if name == "restart" {
			f.BoolVar(&r.Reclone, "reclone", false, "if its image has a newer build, make its clone anew on that one; its volumes stay; else do nothing")
		}
		words, err := f.parse(args, 1, 1)
		if err != nil {
			return err
		}
		if r.Name, err = guestName(words[0]); err != nil {
			return err
		}
		see := f.events()
		return see.end(f.client.Power(ctx, name, r, see.event))
	}
	return v
}
