package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
)

func imageVerb() verb {
	v := verb{
		name: "image", args: "build|list|remove|prune [NAME...]", brief: "Build, list and remove what guests are cloned from; prune removes older builds that no clone needs",
		example: "bladectl image build director web",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withOutput()
		store := f.String("store", image.DefaultStore, "`folder` of images")
		driver := f.String("driver", "", "build for guests of this driver, kvm or lxc (default: what the recipe is for)")
		recipes := f.String("recipes", "", "`folder` of recipes that stand before the built-in ones")
		helper := f.String("bladeguest", "", "`path` of the helper for virtual machines (default: beside bladectl)")
		mirror := f.String("mirror", "", "apt `source` to build from (default: Debian's own)")
		fresh := f.Bool("fresh", false, "build again with the newest packages although the recipe has an image")
		clones := f.String("state", "/var/lib/bladenet", "`folder` whose clones keep their images from being removed")
		words, err := f.parse(args, 1, 64)
		if err != nil {
			return err
		}
		s := image.Store{Dir: *store}
		switch names := words[1:]; words[0] {
		case "build":
			o := image.Options{Helper: *helper, IfMissing: !*fresh}
			if *mirror != "" {
				o.Mirrors = []string{*mirror}
			}
			return imageBuild{store: s, recipes: *recipes, driver: policy.Driver(*driver), options: o}.run(ctx, e, names)
		case "list":
			return listImages(f, s)
		case "remove":
			return removeImages(e, s, *clones, names)
		case "prune":
			return pruneImages(e, s, *clones)
		}
		return fmt.Errorf("image %q: build, list, remove or prune", words[0])
	}
	return v
}

// imageBuild is what is built, of what, and how.
type imageBuild struct {
	store   image.Store
	recipes string        // folder; empty: the built-in ones
	driver  policy.Driver // empty: each recipe's own
	options image.Options
}

func (b imageBuild) run(ctx context.Context, e env, names []string) error {
	recipes, err := image.Recipes(b.recipes)
	if err != nil {
		return err
	}
	if b.options.Helper == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find bladeguest: %w", err)
		}
		b.options.Helper = filepath.Join(filepath.Dir(self), "bladeguest")
	}
	if len(names) == 0 {
		return fmt.Errorf("image build: name one or more of %s", strings.Join(sortedNames(recipes), ", "))
	}
	for _, name := range names {
		r, ok := recipes[name]
		if !ok {
			return fmt.Errorf("image build %s: no such recipe; there are %s", name, strings.Join(sortedNames(recipes), ", "))
		}
		if r, err = r.For(b.driver); err != nil {
			return fmt.Errorf("image build: %w", err)
		}
		begin := time.Now()
		b.options.Progress = func(step string, took time.Duration) {
			if took > 0 {
				fmt.Fprintf(e.stderr, "%7.2fs  %s: %s  [%.2fs]\n", time.Since(begin).Seconds(), name, step, took.Seconds())
			}
		}
		img, err := image.Build(ctx, r, b.store, b.options)
		if err != nil {
			return err
		}
		fmt.Fprintln(e.stdout, img.ID)
	}
	return nil
}

func sortedNames(recipes map[string]image.Recipe) []string {
	names := make([]string, 0, len(recipes))
	for name := range recipes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func listImages(f *flags, s image.Store) error {
	images, err := s.List()
	if err != nil {
		return err
	}
	return f.print(images, func() error {
		t := tabwriter.NewWriter(f.env.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "IMAGE\tRUNS\tSIZE\tCREATED")
		for _, i := range images {
			fmt.Fprintf(t, "%s\t%s\t%d MiB\t%s\n", i.ID, i.Kind, i.Size>>20, i.Created.Local().Format(time.DateTime))
		}
		return t.Flush()
	})
}

// usedImages are the identities on which the clones below a folder stand, with the clones.
func usedImages(state string) (map[string][]string, error) {
	return image.Used(filepath.Join(state, "lxc"), filepath.Join(state, "kvm"))
}

// pruneImages removes older builds that no clone stands on.
func pruneImages(e env, s image.Store, state string) error {
	used, err := usedImages(state)
	if err != nil {
		return err
	}
	unneeded, err := s.Unneeded(used)
	if err != nil {
		return err
	}
	for _, i := range unneeded {
		if err := s.Remove(i.ID, used); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "%s removed, %d MiB\n", i.ID, i.Size>>20)
	}
	return nil
}

func removeImages(e env, s image.Store, state string, ids []string) error {
	used, err := usedImages(state)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.Remove(id, used); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "%s removed\n", id)
	}
	return nil
}
