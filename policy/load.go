package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
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

// Load parses and checks. The fleet is unusable, and may be nil, when the diagnostics have errors. Who loads the same policy
// again and again uses a Loader.
func Load(files []File) (*Fleet, Diagnostics) { return new(Loader).Load(files) }

// Parse reads the files, in name order whatever order they come in, and reports every mistake of syntax, keys and types. What
// the entries say of each other is left to Fleet.Check.
func Parse(files []File) (*Fleet, Diagnostics) {
	f, ds, _ := new(Loader).parse(files)
	return f, ds
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
