package main

import (
	"context"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

func destroyVerb() verb {
	v := verb{
		name: "destroy", args: "GUEST…", brief: "Take guests out of the policy and remove all that they had but their volumes",
		example: "bladectl destroy www-l3",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		drain := f.Duration("drain", 30*time.Second, "how long a real server may take to end the connections that it has; 0: none")
		volumes := f.Bool("volumes", false, "remove their volumes too, which stay otherwise; also those of guests that are gone")
		words, err := f.parse(args, 1, api.MostNames)
		if err != nil {
			return err
		}
		var names []policy.GuestName
		for _, word := range words {
			name, err := guestName(word)
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		see := f.events()
		return see.end(f.client.Destroy(ctx, api.DestroyRequest{Names: names, Drain: *drain, Volumes: *volumes}, see.event))
	}
	return v
}
