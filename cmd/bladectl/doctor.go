package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/quota"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/doctor"
	"github.com/bladenet/bladenet/policy"
)

func doctorVerb() verb {
	v := verb{
		name: "doctor", args: "", brief: "Look for what is wrong with this host, with the remedy",
		example: "bladectl doctor --fix",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket().withOutput()
		fix := f.Bool("fix", false, "fix what no other program can mind, until the next boot")
		dir := f.String("policy", DefaultPolicy, "`folder` of policy files, for a host without bladed")
		blade := f.String("blade", "", "`name` of the blade, for a host without bladed (default: the host's name)")
		all := f.Bool("v", false, "show what is well, too")
		if _, err := f.parse(args, 0, 0); err != nil {
			return err
		}
		answer, err := f.client.Doctor(ctx, api.DoctorRequest{Fix: *fix})
		var away *api.AwayError
		if errors.As(err, &away) {
			answer, err = examine(ctx, *dir, *blade, *fix), nil
		}
		if err != nil {
			return err
		}
		if err := f.print(answer, func() error { return writeDoctor(e.stdout, answer, *all) }); err != nil {
			return err
		}
		for _, x := range answer.Findings {
			if x.Level == api.Wrong && !x.Fixed {
				return errSaid
			}
		}
		return nil
	}
	return v
}

// examine looks at the host without the daemon, with what a policy that has no mistakes says of it.
func examine(ctx context.Context, dir, name string, fix bool) api.Doctor {
	if name == "" {
		name, _ = os.Hostname() // a host without a name is no blade of the policy
	}
	h := doctor.Host{Policy: dir, State: "/var/lib/bladenet", Images: image.DefaultStore, Owners: doctor.TryOwners, Quotas: quota.Kept}
	answer := api.Doctor{Version: api.Version}
	about := api.Finding{Check: "daemon", Level: api.Doubtful, Message: "bladed does not run: what it alone can try was left out", Remedy: "systemctl start bladed"}
	if blade, err := bladeOf(dir, name); err != nil {
		about.Message += fmt.Sprintf("; and so was what the policy would say: %v", err)
	} else {
		h.Blade, answer.Blade = blade, blade.Name
	}
	answer.Findings = append([]api.Finding{about}, doctor.Run(ctx, h, fix)...)
	return answer
}

func bladeOf(dir, name string) (policy.Blade, error) {
	files, err := policy.ReadDir(dir)
	if err != nil {
		return policy.Blade{}, err
	}
	fleet, found := policy.Load(files)
	if found.HasErrors() {
		return policy.Blade{}, fmt.Errorf("%s has mistakes: bladectl check %s", dir, dir)
	}
	return policy.Derive(fleet, policy.BladeName(name))
}

func writeDoctor(w io.Writer, d api.Doctor, all bool) error {
	well := 0
	for _, x := range d.Findings {
		if x.Level == api.Well {
			if well++; all {
				fmt.Fprintf(w, "  ok       %s\n", x.Check)
			}
			continue
		}
		mark := map[api.FindingLevel]string{api.Doubtful: "? warning", api.Wrong: "! error  "}[x.Level]
		if x.Fixed {
			mark = "+ fixed  "
		}
		fmt.Fprintf(w, "%s  %s: %s\n", mark, x.Check, strings.ReplaceAll(x.Message, "\n", "\n           "))
		if x.Remedy != "" {
			fmt.Fprintf(w, "           %s\n", x.Remedy)
		}
		if x.Fixable && !x.Fixed {
			fmt.Fprintf(w, "           bladectl doctor --fix does it until the next boot\n")
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d checks found nothing\n", well, checksOf(d))
	return err
}

func checksOf(d api.Doctor) int {
	seen := map[string]bool{}
	for _, x := range d.Findings {
		seen[x.Check] = true
	}
	return len(seen)
}
