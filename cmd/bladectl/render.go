package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/director/announce"
	"github.com/bladenet/bladenet/guests/director/ipvs"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/kvm/domain"
	"github.com/bladenet/bladenet/guests/lxc/config"
	"github.com/bladenet/bladenet/guests/volume"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

func renderVerb() verb {
	v := verb{
		name: "render", args: "rules|links|guests|director|announce NAME", brief: "Show what a blade or guest would get, as nft, ip, libvirt, LXC, ipvsadm, FRR and keepalived text, offline",
		example: "bladectl render rules blade-1 | nft -c -f -",
	}
	v.run = func(_ context.Context, e env, args []string) error {
		f := newFlags(e, v)
		dir := f.String("policy", DefaultPolicy, "`folder` of policy files")
		store := f.String("store", image.DefaultStore, "`folder` of images, for guests")
		state := f.String("state", "/var/lib/bladenet", "`folder` of clones, for guests")
		words, err := f.parse(args, 2, 2)
		if err != nil {
			return err
		}
		files, err := policy.ReadDir(*dir)
		if err != nil {
			return err
		}
		fleet, err := fleetOf(e, files)
		if err != nil {
			return err
		}
		if words[0] == "guests" {
			return renderGuests(e.stdout, fleet, words[1], image.Store{Dir: *store}, *state)
		}
		return render(e.stdout, fleet, words[0], words[1])
	}
	return v
}

func render(w io.Writer, fleet *policy.Fleet, what, name string) error {
	switch what {
	case "rules", "links":
		blade, err := policy.Derive(fleet, policy.BladeName(name))
		if err != nil {
			return err
		}
		if what == "links" {
			return bridges.Render(w, bridges.Wanted(blade))
		}
		_, err = io.WriteString(w, filter.Compile(blade).Text())
		return err
	case "director", "announce":
		guest, err := directorNamed(fleet, policy.GuestName(name))
		if err != nil {
			return err
		}
		if what == "announce" {
			return renderAnnounce(w, guest)
		}
		return renderDirector(w, *guest.Balancer)
	}
	return fmt.Errorf("render %q: rules, links, guests, director or announce", what)
}

// renderGuests writes the definition of a guest, or of every guest of a blade: domain XML for KVM, a configuration for LXC.
func renderGuests(w io.Writer, fleet *policy.Fleet, name string, store image.Store, state string) error {
	at := policy.BladeName(name)
	if g, ok := fleet.Guest(policy.GuestName(name)); ok {
		at = g.Blade
	}
	blade, err := policy.Derive(fleet, at)
	if err != nil {
		return err
	}
	for _, g := range blade.Guests {
		if string(blade.Name) != name && string(g.Name) != name {
			continue
		}
		text, err := definition(g, store, state)
		if err != nil {
			return fmt.Errorf("render %s: %w", g.Name, err)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func definition(g policy.Guest, store image.Store, state string) ([]byte, error) {
	id, err := store.Resolve(g.Image, g.Driver)
	if err != nil {
		return nil, err
	}
	if err := store.Fits(id, g.Role); err != nil {
		return nil, err
	}
	img, err := store.Get(id)
	if err != nil {
		return nil, err
	}
	spec, dir := guests.Define(g, id), filepath.Join(state, string(g.Driver), string(g.Name))
	if g.Driver == policy.DriverKVM {
		return domain.Encode(domain.Machine{Spec: spec, Dir: dir, Image: img})
	}
	return config.Encode(config.Container{
		Spec: spec, Dir: dir, Image: img, Namespace: policy.NamespacePath(g.Name), AppArmor: "unconfined",
		VolumesAt: volume.Store{Dir: filepath.Join(state, "volumes")}.Guest(g.Name),
	}), nil
}

func directorNamed(fleet *policy.Fleet, name policy.GuestName) (policy.Guest, error) {
	if d := fleet.Director(name); d != nil {
		blade, err := policy.Derive(fleet, d.Blade)
		if err != nil {
			return policy.Guest{}, err
		}
		for _, g := range blade.Guests {
			if g.Name == name {
				return g, nil
			}
		}
	}
	var names []string
	for _, d := range fleet.Directors {
		names = append(names, string(d.Name))
	}
	return policy.Guest{}, fmt.Errorf("render: no director %q; there are: %s", name, strings.Join(names, ", "))
}

// renderDirector writes the IPVS table of a director all of whose checks are good.
func renderDirector(w io.Writer, b policy.Balancer) error {
	weights := make([][]int, len(b.Services))
	for i, s := range b.Services {
		for _, d := range s.Destinations {
			weight := d.Weight
			if d.Sorry || d.Spare || d.Drained {
				weight = 0
			}
			weights[i] = append(weights[i], weight)
		}
	}
	table, err := ipvs.Wanted(b.Services, weights, nil)
	if err != nil {
		return err
	}
	return ipvs.Render(w, table)
}

// renderAnnounce writes each routing daemon's configuration under a comment that names its file.
func renderAnnounce(w io.Writer, g policy.Guest) error {
	texts := announce.Render(announce.Of(g.Inside, g.Balancer.Announce))
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if _, err := fmt.Fprintf(w, "! %s\n%s", name, texts[name]); err != nil {
			return err
		}
	}
	return nil
}
