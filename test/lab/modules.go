package lab

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// moduleTable is what depmod knows of a kernel's modules: each module's file below lib/modules/RELEASE and the files it needs.
type moduleTable struct {
	files map[string]string   // module name → file
	needs map[string][]string // file → files
}

// parseModules reads the form of modules.dep(5): "file: file file...".
func parseModules(r io.Reader) (moduleTable, error) {
	t := moduleTable{files: map[string]string{}, needs: map[string][]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, needs, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		t.files[moduleName(file)] = file
		t.needs[file] = strings.Fields(needs)
	}
	return t, lines.Err()
}

// moduleName is the name modprobe knows a module's file by: without folder and suffix, dashes as underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// order lists the files of the named modules and of all they need, each after what it needs and once.
func (t moduleTable) order(names ...string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, need := range t.needs[file] {
			visit(need)
		}
		files = append(files, file)
	}
	for _, name := range names {
		file, ok := t.files[moduleName(name)]
		if !ok {
			return nil, fmt.Errorf("find module %s: not in modules.dep", name)
		}
		visit(file)
	}
	return files, nil
}
