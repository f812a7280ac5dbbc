package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy/yaml"
)

// File is one policy file. Name is what diagnostics call it.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Bounds of what is read, whatever a folder holds.
const (
	mostFiles     = 4096
	mostFileBytes = 8 << 20
	mostBytes     = 32 << 20
	mostNodes     = 1_000_000
)

// ReadDir reads the policy files of a folder: *.yaml and *.yml in name order, hidden files left out. It refuses files above
// 8 MiB, folders above 32 MiB, and whatever is no regular file.
func ReadDir(dir string) ([]File, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	var files []File
	total := 0
	for _, e := range list {
		ext := filepath.Ext(e.Name())
		if ext != ".yaml" && ext != ".yml" || strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		data, err := readBounded(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		files = append(files, File{Name: filepath.Join(dir, e.Name()), Data: data})
		if total += len(data); total > mostBytes || len(files) > mostFiles {
			return nil, fmt.Errorf("read policy %s: more than %d files or %d bytes", dir, mostFiles, mostBytes)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("read policy %s: no *.yaml file", dir)
	}
	return files, nil
}

// readBounded reads one regular file.
func readBounded(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, mostFileBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > mostFileBytes {
		return nil, fmt.Errorf("%s: more than %d bytes", name, mostFileBytes)
	}
	return data, nil
}

// Load parses and checks. The fleet is unusable, and may be nil, when the diagnostics have errors.
func Load(files []File) (*Fleet, Diagnostics) {
	f, ds, whole := parse(files)
	if whole {
		ds = sortDiagnostics(append(ds, f.Check()...))
	}
	return f, ds
}

// Parse reads the files, in name order whatever order they come in, and reports every mistake of syntax, keys and types. What
// the entries say of each other is left to Fleet.Check.
func Parse(files []File) (*Fleet, Diagnostics) {
	f, ds, _ := parse(files)
	return f, ds
}

// parse also says whether every entry is there, even if in parts, so that references can be judged.
func parse(files []File) (f *Fleet, ds Diagnostics, whole bool) {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	r := &reporter{sources: sources{}}
	d := &decoder{reporter: r, shapes: map[reflect.Type]*shape{}}
	var doc document
	whole = true
	total, nodes := 0, mostNodes
	for _, file := range files {
		total += len(file.Data)
		if len(file.Data) > mostFileBytes || total > mostBytes {
			r.errorf(Pos{File: file.Name, Line: 1, Col: 1}, "", "a file above %d bytes, or a policy above %d", mostFileBytes, mostBytes)
			whole = false
			break
		}
		text := string(file.Data)
		r.sources[file.Name] = &source{text: text}
		tree, errs := yaml.Parse(text, yaml.Options{Nodes: nodes})
		for _, e := range errs {
			r.errorf(Pos{File: file.Name, Line: e.Line, Col: e.Col}, e.Hint, "%s", e.Message)
		}
		nodes -= tree.Nodes
		whole = whole && len(errs) == 0
		d.file = file.Name
		for _, root := range tree.Documents {
			whole = d.document(root, &doc) && whole
		}
	}
	return build(&doc, r), r.done(), whole && !r.full()
}

// document decodes one document and reports whether no section of it is lost.
func (d *decoder) document(root *yaml.Node, doc *document) bool {
	if root.IsNull() {
		return true
	}
	lost := len(d.list)
	if root.Kind != yaml.Mapping {
		d.errorf(d.pos(root), "keys: "+strings.Join(shapeOf(reflect.TypeFor[document]()).names, ", "), "a policy file must be a map, not %s", kindName(root))
		return false
	}
	v := reflect.ValueOf(doc).Elem()
	d.structure(root, v, field{name: wholePolicy})
	for _, found := range d.list[lost:] {
		if strings.HasPrefix(found.Message, "unknown key") && strings.HasSuffix(found.Message, wholePolicy) ||
			strings.HasSuffix(found.Message, "of "+wholePolicy) {
			return false
		}
	}
	return true
}
