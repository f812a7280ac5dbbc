package policy

import (
	"fmt"
	"slices"

	"github.com/bladenet/bladenet/policy/yaml"
)

// drainKey is what SetDrain writes.
const drainKey = "drain"

// SetDrain writes `drain: true` into a guest's entry, or takes the key out, and leaves every other byte as it is. No file is
// returned when the guest is so already. It refuses, with the place, an entry whose own map is not written where the guest is.
func SetDrain(files []File, f *Fleet, name GuestName, on bool) ([]File, error) {
	g, ok := f.Guest(name)
	if !ok {
		return nil, fmt.Errorf("drain guest %s: not in the policy", name)
	}
	if f.drained(g) == on {
		return nil, nil
	}
	i := slices.IndexFunc(files, func(x File) bool { return x.Name == g.Pos.File })
	if i < 0 {
		return nil, fmt.Errorf("drain guest %s: no file %s", name, g.Pos.File)
	}
	data, err := setDrain(string(files[i].Data), g, on)
	if err != nil {
		return nil, fmt.Errorf("drain guest %s at %s: %w", name, g.Pos, err)
	}
	return []File{{Name: files[i].Name, Data: []byte(data)}}, nil
}

// drained reports whether a guest is drained.
func (f *Fleet) drained(g GuestEntry) bool {
	if d := f.Director(g.Name); d != nil {
		return d.Drain
	}
	s := f.RealServer(g.Name)
	return s != nil && s.Drain
}

// setDrain edits a text and proves that the entry's key is all that changed.
func setDrain(text string, g GuestEntry, on bool) (string, error) {
	tree, errs := yaml.Parse(text, yaml.Options{})
	if len(errs) > 0 {
		return "", fmt.Errorf("line %d: %s", errs[0].Line, errs[0].Message)
	}
	holder, at := findEntry(tree, section(g.Role), g)
	if holder == nil || holder.Pairs[at].Value.Kind != yaml.Mapping || len(holder.Pairs[at].Value.Pairs) == 0 {
		return "", fmt.Errorf("the entry comes in by an alias or a merge key; edit the file by hand")
	}
	entry := holder.Pairs[at].Value
	truth := &yaml.Node{Kind: yaml.Scalar, Style: yaml.Plain, Value: "true"}
	was := slices.IndexFunc(entry.Pairs, func(p yaml.Pair) bool { return p.Key.Value == drainKey })
	var rest string
	switch {
	case was >= 0 && on:
		old := entry.Pairs[was].Value
		rest = text[:old.Offset] + truth.Value + text[old.End:]
		entry.Pairs[was].Value = truth
	case was >= 0:
		from, to := entrySpan(text, entry, was)
		rest = text[:from] + text[to:]
		entry.Pairs = slices.Delete(entry.Pairs, was, was+1)
	default:
		first := entry.Pairs[0].Key.Offset
		between := ", "
		if entry.Style == yaml.Block {
			between = "\n" + text[lineStart(text, first):first]
		}
		rest = text[:first] + drainKey + ": " + truth.Value + between + text[first:]
		entry.Pairs = slices.Insert(entry.Pairs, 0, yaml.Pair{Key: &yaml.Node{Kind: yaml.Scalar, Style: yaml.Plain, Value: drainKey}, Value: truth})
	}
	after, errs := yaml.Parse(rest, yaml.Options{})
	if len(errs) > 0 || !slices.EqualFunc(tree.Documents, after.Documents, sameMeaning) {
		return "", fmt.Errorf("something else would change with it; edit the file by hand")
	}
	return rest, nil
}

// LeftShort says what would fail for want of a guest that takes no new connections: services of a real server that would lose their
// quorum, by name, or the zone of a director that has no other one. Sorry servers and spare ones count for nothing.
func (f *Fleet) LeftShort(name GuestName) []string {
	if d := f.Director(name); d != nil {
		return f.leftAlone(d)
	}
	g := f.RealServer(name)
	if g == nil || g.Spare {
		return nil
	}
	var out []string
	for _, s := range g.Serves {
		service := f.Service(s.Service)
		if service == nil {
			continue
		}
		left := 0
		for _, other := range f.index.servers[s.Service] {
			if other.Name != name && !other.Drain && !other.Spare && other.weight > 0 {
				left++
			}
		}
		if left < service.Up {
			out = append(out, fmt.Sprintf("%s needs %d and would have %d", s.Service, service.Up, left))
		}
	}
	return out
}

func (f *Fleet) leftAlone(d *Director) []string {
	here := f.Blade(d.Blade)
	if here == nil {
		return nil
	}
	other := slices.ContainsFunc(f.Directors, func(x Director) bool {
		b := f.Blade(x.Blade)
		return x.Name != d.Name && !x.Drain && x.announces() && b != nil && b.Zone == here.Zone
	})
	if other {
		return nil
	}
	return []string{fmt.Sprintf("zone %s has no other director that announces its VIPs", here.Zone)}
}
