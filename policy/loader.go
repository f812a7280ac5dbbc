package policy

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy/yaml"
)

// Loader loads a policy that changes by and by: a file whose bytes are as they were at the last call is not read again. What
// the entries say of each other is checked whole each time. The zero value is ready; it is for one goroutine at a time.
type Loader struct {
	parts  map[string]*part // of the last call, by file name
	shapes map[reflect.Type]*shape
}

// Load does what the function Load does, with the same result.
func (l *Loader) Load(files []File) (*Fleet, Diagnostics) {
	f, ds, whole := l.parse(files)
	if whole {
		ds = sortDiagnostics(append(ds, f.Check()...))
	}
	return f, ds
}

// part is what one file says. Every list of named entries is sorted by name.
type part struct {
	source  *source
	nodes   int         // values in it
	aliased int         // values that its aliases expand to
	found   Diagnostics // of syntax, keys and types
	whole   bool        // every entry is there, even if in parts

	zones       []at[ZoneName]
	sites       []at[SiteName]
	networks    []Network
	blades      []BladeEntry
	services    []ServiceEntry
	directors   []Director
	realServers []RealServer
	rules       []RuleEntry
	hosts       []RuleEntry
	alerts      []alertDoc
	expect      []expectDoc
}

// parse also says whether every entry is there, even if in parts, so that references can be judged.
func (l *Loader) parse(files []File) (f *Fleet, ds Diagnostics, whole bool) {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	r := &reporter{sources: sources{}}
	known := make(map[string]*part, len(files))
	var parts []*part
	whole = true
	total, nodes, aliased := 0, 0, 0
	for _, file := range files {
		if total += len(file.Data); len(file.Data) > mostFileBytes || total > mostBytes {
			r.errorf(Pos{File: file.Name, Line: 1, Col: 1}, "", "a file above %d bytes, or a policy above %d", mostFileBytes, mostBytes)
			whole = false
			break
		}
		if nodes >= mostNodes {
			r.errorf(Pos{File: file.Name, Line: 1, Col: 1}, "", "more than %d values in the files before", mostNodes)
			whole = false
			break
		}
		p := l.parts[file.Name]
		if p == nil || p.source.text != string(file.Data) || nodes+p.nodes > mostNodes || aliased+p.aliased > mostAliased {
			p = l.read(file, mostNodes-nodes, aliased)
		}
		nodes, aliased = nodes+p.nodes, aliased+p.aliased
		known[file.Name] = p
		r.sources[file.Name] = p.source
		parts = append(parts, p)
		whole = whole && p.whole
		for _, d := range p.found {
			if !r.full() {
				r.list = append(r.list, d)
			}
		}
	}
	l.parts = known
	f = assemble(parts, r)
	return f, r.done(), whole && !r.full()
}

// read decodes one file. It may hold so many values; so many values have come in by aliases before.
func (l *Loader) read(file File, nodes, aliased int) *part {
	if l.shapes == nil {
		l.shapes = map[reflect.Type]*shape{}
	}
	p := &part{source: &source{text: string(file.Data)}}
	d := &decoder{reporter: &reporter{}, file: file.Name, aliased: aliased, shapes: l.shapes}
	tree, errs := yaml.Parse(p.source.text, yaml.Options{Nodes: nodes})
	for _, e := range errs {
		d.errorf(Pos{File: file.Name, Line: e.Line, Col: e.Col}, e.Hint, "%s", e.Message)
	}
	var doc document
	p.whole = len(errs) == 0
	for _, root := range tree.Documents {
		p.whole = d.document(root, &doc) && p.whole
	}
	p.nodes, p.aliased, p.found = tree.Nodes, d.aliased-aliased, d.list
	p.build(&doc)
	return p
}

// merge joins the lists of all files, sorted by name, and reports names given twice: the first one counts, by file name, then
// as written.
func merge[T any, N ~string](r *reporter, parts []*part, kind string, list func(*part) []T, id func(*T) (N, Pos)) []T {
	lists := make([][]*T, len(parts))
	for i, p := range parts {
		own := list(p)
		lists[i] = make([]*T, len(own))
		for j := range own {
			lists[i][j] = &own[j]
		}
	}
	sorted := mergeAll(lists, func(a, b *T) int {
		x, _ := id(a)
		y, _ := id(b)
		return cmp.Compare(x, y)
	})
	var out []T
	for i, e := range sorted {
		name, place := id(e)
		if i > 0 {
			if first, firstPlace := id(&out[len(out)-1]); first == name {
				r.clash(place, firstPlace, "first written here", "names are unique over all files", "%s %s twice", kind, name)
				continue
			}
		}
		if out == nil {
			out = make([]T, 0, len(sorted))
		}
		out = append(out, *e)
	}
	return out
}

// mergeAll joins sorted lists to one sorted list; of equal elements those of an earlier list come first.
func mergeAll[T any](lists [][]T, compare func(a, b T) int) []T {
	switch n := len(lists); n {
	case 0:
		return nil
	case 1:
		return lists[0]
	default:
		return mergeTwo(mergeAll(lists[:n/2], compare), mergeAll(lists[n/2:], compare), compare)
	}
}

// mergeTwo joins two sorted lists. An empty one costs nothing.
func mergeTwo[T any](a, b []T, compare func(a, b T) int) []T {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make([]T, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compare(b[0], a[0]) < 0 {
			out, b = append(out, b[0]), b[1:]
		} else {
			out, a = append(out, a[0]), a[1:]
		}
	}
	return append(append(out, a...), b...)
}
