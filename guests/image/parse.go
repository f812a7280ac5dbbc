package image

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/yaml"
)

// reader turns a tree of nodes into a recipe and collects what does not fit, each with its line and column.
type reader struct{ errs []error }

func (r *reader) bad(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%d:%d: %s", n.Line, n.Col, fmt.Sprintf(format, args...)))
}

// keys is what a map may hold and who reads it.
type keys map[string]func(*yaml.Node)

func (r *reader) mapping(n *yaml.Node, k keys) {
	n = n.Resolve()
	if n.Kind != yaml.Mapping {
		r.bad(n, "expected a map of %s", strings.Join(slices.Sorted(maps.Keys(k)), ", "))
		return
	}
	seen := map[string]bool{}
	for _, p := range n.Pairs {
		read, known := k[p.Key.Value]
		switch {
		case !known:
			r.bad(p.Key, "unknown key %q; known are %s", p.Key.Value, strings.Join(slices.Sorted(maps.Keys(k)), ", "))
		case seen[p.Key.Value]:
			r.bad(p.Key, "key %q a second time", p.Key.Value)
		default:
			read(p.Value)
		}
		seen[p.Key.Value] = true
	}
}

func (r *reader) each(n *yaml.Node, read func(*yaml.Node)) {
	n = n.Resolve()
	if n.Kind != yaml.Sequence {
		if !n.IsNull() {
			r.bad(n, "expected a list")
		}
		return
	}
	for _, item := range n.Items {
		read(item)
	}
}

func (r *reader) scalar(n *yaml.Node) string {
	n = n.Resolve()
	if n.Kind != yaml.Scalar {
		r.bad(n, "expected a single value")
		return ""
	}
	if n.IsNull() {
		return ""
	}
	return n.Value
}

func (r *reader) text(to *string) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = r.scalar(n) }
}

func (r *reader) list(to *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		r.each(n, func(item *yaml.Node) { *to = append(*to, r.scalar(item)) })
	}
}

// decodeRecipe reads one document.
func decodeRecipe(text string) (Recipe, error) {
	file, mistakes := yaml.Parse(text, yaml.Options{Nodes: 100_000})
	if len(mistakes) > 0 {
		errs := make([]error, 0, len(mistakes))
		for _, m := range mistakes {
			errs = append(errs, m)
		}
		return Recipe{}, errors.Join(errs...)
	}
	if len(file.Documents) != 1 {
		return Recipe{}, fmt.Errorf("expected one document, found %d", len(file.Documents))
	}
	var r reader
	var out Recipe
	kind := ""
	r.mapping(file.Documents[0], keys{
		"name": r.text(&out.Name), "kind": r.text(&kind), "suite": r.text(&out.Suite),
		"packages": r.list(&out.Packages), "commands": r.list(&out.Commands), "remove": r.list(&out.Remove),
		"command": r.list(&out.Command), "halt": r.text(&out.Halt), "capabilities": r.list(&out.Capabilities),
		"modules": r.list(&out.Modules), "disk": r.text(&out.Disk), "cmdline": r.text(&out.Cmdline),
		"files": func(n *yaml.Node) {
			r.each(n, func(item *yaml.Node) {
				var f File
				r.mapping(item, keys{"path": r.text(&f.Path), "mode": r.text(&f.Mode), "content": r.text(&f.Content)})
				out.Files = append(out.Files, f)
			})
		},
		"certificates": func(n *yaml.Node) {
			r.each(n, func(item *yaml.Node) {
				var c Certificate
				r.mapping(item, keys{"cert": r.text(&c.Cert), "key": r.text(&c.Key), "names": r.list(&c.Names)})
				out.Certs = append(out.Certs, c)
			})
		},
	})
	out.Kind = policy.Driver(kind)
	return out, errors.Join(r.errs...)
}
