package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

func spawnVerb() verb {
	v := verb{
		name: "spawn", args: "realserver|director NAME", brief: "Make a guest and return when it is in rotation and answers",
		example: "bladectl spawn realserver www-l3 --service www --image web",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput().withVerbose()
		services := f.String("service", "", "services that a real server serves, joined by commas")
		site := f.String("site", "", "site of a director")
		blade := f.String("blade", "", "blade to run on; the one asked where empty")
		driver := f.String("driver", "", "what runs it: kvm, a virtual machine, or lxc, a container (default: lxc for a real server, kvm for a director)")
		image := f.String("image", "", "image to clone (default: the one that the other real servers of its services have; director)")
		weight := f.Int("weight", 0, "weight in its services; 0 means the default of 100")
		privileged := f.Bool("privileged", false, "a container without a user namespace, for where the images' file system cannot show files with other owners")
		spare := f.Bool("spare", false, "a real server that stays off until a service of it loses its quorum")
		count := f.Int("count", 1, "how many: NAME-1, NAME-2, …")
		dryRun := f.Bool("dry-run", false, "show the policy entry and the plan, change nothing")
		keep := f.Bool("keep", false, "keep what there is when it fails")
		words, err := f.parse(args, 2, 2)
		if err != nil {
			return err
		}
		r := api.SpawnRequest{
			Role: policy.Role(words[0]), Blade: policy.BladeName(*blade), Site: policy.SiteName(*site),
			Driver: policy.Driver(*driver), Image: *image, Weight: *weight, Privileged: *privileged, Spare: *spare, DryRun: *dryRun, Keep: *keep,
		}
		if r.Role != policy.RoleDirector && r.Role != policy.RoleRealServer {
			return fmt.Errorf("spawn %q: a guest is a director or a realserver", words[0])
		}
		for name := range strings.SplitSeq(*services, ",") {
			if name != "" {
				r.Services = append(r.Services, policy.ServiceName(name))
			}
		}
		if r.Names, err = spawnNames(words[1], *count); err != nil {
			return err
		}
		see := f.events()
		return see.end(f.client.Spawn(ctx, r, see.event))
	}
	return v
}

func spawnNames(name string, count int) ([]policy.GuestName, error) {
	if count < 1 || count > api.MostNames {
		return nil, fmt.Errorf("spawn --count %d: from 1 to %d", count, api.MostNames)
	}
	if count == 1 {
		one, err := guestName(name)
		return []policy.GuestName{one}, err
	}
	var names []policy.GuestName
	for i := range count {
		one, err := guestName(fmt.Sprintf("%s-%d", name, i+1))
		if err != nil {
			return nil, err
		}
		names = append(names, one)
	}
	return names, nil
}

func guestName(s string) (policy.GuestName, error) {
	const characters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if s == "" || len(s) > 63 || strings.Trim(s, characters) != "" || s[0] == '-' || s[len(s)-1] == '-' {
		return "", fmt.Errorf("guest %q: a name has lower-case letters, digits and hyphens, 63 at most, and begins and ends without a hyphen", s)
	}
	return policy.GuestName(s), nil
}
