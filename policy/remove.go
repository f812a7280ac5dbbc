package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy/yaml"
)

// RemoveGuest takes a guest's entry out of whichever file holds it, and leaves every other byte as it is, comments included. It
// returns the files with a new text, and the names of files that said nothing else and are to be removed. It refuses, with the
// place, where the text around the entry cannot be kept: an entry that comes in by an alias or a merge key, or whose anchor
// others use. What else names the guest (rules, sorry servers, expectations) is for the caller's next Load to find.
func RemoveGuest(files []File, f *Fleet, name GuestName) (changed []File, removedWholeFile []string, err error) {
	g, ok := f.Guest(name)
	if !ok {
		return nil, nil, fmt.Errorf("remove guest %s: not in the policy", name)
	}
	i := slices.IndexFunc(files, func(x File) bool { return x.Name == g.Pos.File })
	if i < 0 {
		return nil, nil, fmt.Errorf("remove guest %s: no file %s", name, g.Pos.File)
	}
	data, empty, err := removeEntry(string(files[i].Data), section(g.Role), g)
	if err != nil {
		return nil, nil, fmt.Errorf("remove guest %s at %s: %w", name, g.Pos, err)
	}
	if empty {
		return nil, []string{files[i].Name}, nil
	}
	return []File{{Name: files[i].Name, Data: []byte(data)}}, nil, nil
}

// section names the map that holds guests of a role.
func section(r Role) string {
	if r == RoleDirector {
		return "directors"
	}
	return "realservers"
}

// lineStart is the offset of the line that an offset lies in.
func lineStart(text string, offset int) int { return strings.LastIndexByte(text[:offset], '\n') + 1 }

// removeEntry cuts one entry out of a text and proves that nothing else is gone. empty: the rest says nothing.
func removeEntry(text, section string, g GuestEntry) (rest string, empty bool, err error) {
	tree, errs := yaml.Parse(text, yaml.Options{})
	if len(errs) > 0 {
		return "", false, fmt.Errorf("line %d: %s", errs[0].Line, errs[0].Message)
	}
	holder, at := findEntry(tree, section, g)
	if holder == nil {
		return "", false, fmt.Errorf("the entry comes in by an alias or a merge key; edit the file by hand")
	}
	from, to := entrySpan(text, holder, at)
	rest = text[:from] + text[to:]
	after, errs := yaml.Parse(rest, yaml.Options{})
	if len(errs) > 0 {
		return "", false, fmt.Errorf("without the entry, line %d: %s; edit the file by hand", errs[0].Line, errs[0].Message)
	}
	holder.Pairs = slices.Delete(holder.Pairs, at, at+1)
	want, have := meaningful(tree.Documents), meaningful(after.Documents)
	if !slices.EqualFunc(want, have, sameMeaning) {
		return "", false, fmt.Errorf("something else would be gone with the entry; edit the file by hand")
	}
	return rest, len(have) == 0, nil
}

// findEntry finds the map that holds the guest's entry as written, and the entry's index in it.
func findEntry(tree yaml.File, section string, g GuestEntry) (holder *yaml.Node, at int) {
	for _, root := range tree.Documents {
		for _, p := range root.Pairs {
			if p.Key.Value != section || p.Value.Kind != yaml.Mapping {
				continue
			}
			i := slices.IndexFunc(p.Value.Pairs, func(e yaml.Pair) bool {
				return e.Key.Value == string(g.Name) && e.Key.Line == g.Pos.Line && e.Key.Col == g.Pos.Col
			})
			if i >= 0 {
				return p.Value, i
			}
		}
	}
	return nil, 0
}

// entrySpan is what to cut: whole lines for an entry of a block map, the entry and one comma for one of a flow map.
func entrySpan(text string, holder *yaml.Node, at int) (from, to int) {
	pair := holder.Pairs[at]
	from, to = pair.Key.Offset, max(pair.Value.End, pair.Key.End)
	if holder.Style == yaml.Block {
		from = lineStart(text, from)
		if strings.HasPrefix(text[from:], "\ufeff") {
			from += len("\ufeff")
		}
		end := strings.IndexByte(text[to:], '\n')
		if end < 0 {
			return from, len(text)
		}
		return from, to + end + 1
	}
	if at+1 < len(holder.Pairs) {
		return from, holder.Pairs[at+1].Key.Offset
	}
	if at > 0 {
		before := holder.Pairs[at-1]
		return max(before.Value.End, before.Key.End), to
	}
	for to < holder.End-1 && strings.IndexByte(" ,\t\r\n", text[to]) >= 0 {
		to++
	}
	return from, to
}

// meaningful leaves out documents and sections that say nothing.
func meaningful(roots []*yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	for _, root := range roots {
		if root.Kind != yaml.Mapping {
			if !root.IsNull() {
				out = append(out, root)
			}
			continue
		}
		kept := *root
		kept.Pairs = slices.DeleteFunc(slices.Clone(root.Pairs), func(p yaml.Pair) bool {
			return p.Value.IsNull() || p.Value.Kind == yaml.Mapping && len(p.Value.Pairs) == 0
		})
		if len(kept.Pairs) > 0 {
			out = append(out, &kept)
		}
	}
	return out
}

// sameMeaning compares two trees without places and styles.
func sameMeaning(a, b *yaml.Node) bool {
	if a.Kind == yaml.Alias || b.Kind == yaml.Alias {
		return a.Kind == b.Kind && a.Value == b.Value
	}
	return a.Kind == b.Kind && a.Value == b.Value && a.IsNull() == b.IsNull() && a.Anchor == b.Anchor && sameQuoting(a, b) &&
		slices.EqualFunc(a.Items, b.Items, sameMeaning) &&
		slices.EqualFunc(a.Pairs, b.Pairs, func(x, y yaml.Pair) bool { return sameKey(x.Key, y.Key) && sameMeaning(x.Value, y.Value) })
}

// sameKey compares two keys; quotes mean something around << only.
func sameKey(a, b *yaml.Node) bool {
	return a.Value == b.Value && (a.Value != "<<" || sameQuoting(a, b))
}

// sameQuoting reports whether two scalars are both plain or both not: a quoted number is no number.
func sameQuoting(a, b *yaml.Node) bool {
	return a.Kind != yaml.Scalar || (a.Style == yaml.Plain) == (b.Style == yaml.Plain)
}
