package main

import (
	"context"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
)

func drainVerb() verb {
	v := verb{
		name: "drain", args: "GUEST", brief: "Let a guest take no new connections and wait until those that it has have ended",
		example: "bladectl drain www-l3 --wait 5m",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		wait := f.Duration("wait", 10*time.Minute, "how long to wait for its connections to end; 0: not at all")
		force := f.Bool("force", false, "drain it though a service would lose its quorum, or a zone its last director")
		words, err := f.parse(args, 1, 1)
		if err != nil {
			return err
		}
		return f.drain(ctx, words[0], api.DrainRequest{Wait: *wait, Force: *force})
	}
	return v
}

func undrainVerb() verb {
	v := verb{
		name: "undrain", args: "GUEST", brief: "Let a drained guest take connections again",
		example: "bladectl undrain www-l3",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		words, err := f.parse(args, 1, 1)
		if err != nil {
			return err
		}
		return f.drain(ctx, words[0], api.DrainRequest{Undo: true})
	}
	return v
}

func (f *flags) drain(ctx context.Context, word string, r api.DrainRequest) error {
	var err error
	if r.Name, err = guestName(word); err != nil {
		return err
	}
	see := f.events()
	return see.end(f.client.Drain(ctx, r, see.event))
}
