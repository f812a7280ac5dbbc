package house

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/bladenet/bladenet"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Dir, Doc    string
	Imports, CgoFiles, Deps []string
	GoFiles                 []string
}

func list(t *testing.T, env []string, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// owners says which package alone may import a library, and why.
var owners = []struct {
	library string
	owners  []string
	why     string
}{
	{"github.com/google/nftables", []string{"policy/nft", "test/bench/peer"}, "one place turns a ruleset into kernel state; benchmarks compare it with the library"},
	{"github.com/moby/ipvs", []string{"test/bench/peer"}, "benchmarks compare with it; guests/director/ipvs speaks to the kernel by itself"},
	{"github.com/lxc/go-lxc", []string{"guests/lxc"}, "cgo stays in the drivers"},
	{"libvirt.org/go/libvirt", []string{"guests/kvm"}, "cgo stays in the drivers"},
	{"github.com/vishvananda/netlink", []string{"bridges", "guests/inside", "policy/nft", "test/bench/traffic"}, "links belong to bridges and inside; policy/nft counts conntrack entries; benchmarks make bare links"},
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	for _, p := range list(t, nil, "-tags", "libvirt_dlopen", "./...") {
		for _, imported := range p.Imports {
			for _, o := range owners {
				if imported != o.library && !strings.HasPrefix(imported, o.library+"/") {
					continue
				}
				where := strings.TrimPrefix(p.ImportPath, module+"/")
				if !slices.Contains(o.owners, where) {
					t.Errorf("%s imports %s; only %v may: %s", where, imported, o.owners, o.why)
				}
			}
		}
	}
}

// arrows says what a part of the house must not know, and why.
var arrows = []struct{ from, not, why string }{
	{"policy/filter", "policy/nft", "the ruleset is pure"},
	{"policy", "hostagent", "arrows point down"},
	{"policy", "bridges", "arrows point down"},
	{"policy", "guests", "arrows point down"},
	{"bridges", "guests", "they share values in policy, nothing else"},
	{"bridges", "hostagent", "arrows point down"},
	{"guests", "bridges", "they share values in policy, nothing else"},
	{"guests", "hostagent", "arrows point down"},
	{"hostagent", "cmd", "arrows point down"},
	{"hostagent", "guests/kvm", "drivers are handed in, so that the loop builds without cgo"},
	{"hostagent", "guests/lxc", "drivers are handed in, so that the loop builds without cgo"},
	{"cmd/bladectl", "policy/nft", "the command line asks the daemon"},
	{"cmd/bladeguest", "bridges", "the helper in a guest knows nothing of the host"},
	{"cmd/bladeguest", "hostagent", "the helper in a guest knows nothing of the host"},
	{"cmd/bladeguest", "policy/nft", "the helper in a guest knows nothing of the host"},
}

func within(path, part string) bool {
	return path == module+"/"+part || strings.HasPrefix(path, module+"/"+part+"/")
}

func TestArrowsPointOneWay(t *testing.T) {
	for _, p := range list(t, nil, "-tags", "libvirt_dlopen", "./...") {
		for _, a := range arrows {
			if !within(p.ImportPath, a.from) {
				continue
			}
			for _, dep := range p.Deps {
				if within(dep, a.not) {
					t.Errorf("%s depends on %s: %s", p.ImportPath, dep, a.why)
				}
			}
		}
	}
}

func TestCgoOnlyInDrivers(t *testing.T) {
	for _, p := range list(t, []string{"CGO_ENABLED=1"}, "-tags", "libvirt_dlopen", "./...") {
		if len(p.CgoFiles) > 0 && !within(p.ImportPath, "guests/kvm") && !within(p.ImportPath, "guests/lxc") {
			t.Errorf("%s has cgo files: %v", p.ImportPath, p.CgoFiles)
		}
	}
	for _, p := range list(t, []string{"CGO_ENABLED=0"}, "-deps", "./cmd/bladectl", "./cmd/bladeguest") {
		if slices.Contains([]string{"libvirt.org/go/libvirt", "github.com/lxc/go-lxc", module + "/guests/kvm", module + "/guests/lxc"}, p.ImportPath) {
			t.Errorf("a static command links %s", p.ImportPath)
		}
	}
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	for _, p := range list(t, nil, "-tags", "libvirt_dlopen", "./...") {
		if p.Doc == "" {
			t.Errorf("%s has no package sentence", p.ImportPath)
		}
		docs := 0
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				docs++
			}
		}
		if docs != 1 {
			t.Errorf("%s: %d files hold a package sentence, want one", p.ImportPath, docs)
		}
	}
}

// forked are the tools that the product never runs: what they do is done through netlink and libraries.
var forked = []string{"nft", "ip", "ipvsadm", "iptables", "ebtables", "brctl", "bridge", "virsh", "lxc-start", "lxc-stop", "lxc-copy", "sysctl", "conntrack"}

func TestProductForksNoNetworkTool(t *testing.T) {
	for _, top := range []string{"cmd", "hostagent", "guests", "bridges", "policy"} {
		err := filepath.WalkDir(filepath.Join("..", "..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if name := commandOf(n); slices.Contains(forked, filepath.Base(name)) {
					t.Errorf("%s runs %s", path, name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoPatternIsCompiledAtStart: each expression of a package is compiled by every start of a program that links it, used or not.
func TestNoPatternIsCompiledAtStart(t *testing.T) {
	for _, top := range []string{"cmd", "hostagent", "guests", "bridges", "policy"} {
		err := filepath.WalkDir(filepath.Join("..", "..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			if compilesAtStart(f) {
				t.Errorf("%s compiles an expression before main: sync.OnceValue, or where it is used", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// compilesAtStart says whether a variable of a package is an expression that is compiled outside of any function.
func compilesAtStart(f *ast.File) (found bool) {
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok {
			ast.Inspect(g, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				found = found || ok && (sel.Sel.Name == "MustCompile" || sel.Sel.Name == "MustCompilePOSIX")
				_, inner := n.(*ast.FuncLit)
				return !inner
			})
		}
	}
	return found
}

func TestCompilesAtStart(t *testing.T) {
	for text, want := range map[string]bool{
		"package p; var e = regexp.MustCompile(`a`)":                                                  true,
		"package p; var e = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`a`) })": false,
		"package p; func f() { regexp.MustCompile(`a`) }":                                             false,
		"package p; var list = []*regexp.Regexp{regexp.MustCompile(`a`)}":                             true,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "p.go", text, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := compilesAtStart(f); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// commandOf returns the program that a call of os/exec names literally.
func commandOf(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return ""
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || (sel.Sel.Name != "Command" && sel.Sel.Name != "CommandContext") {
		return ""
	}
	for _, arg := range call.Args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			s, _ := strconv.Unquote(lit.Value)
			return s
		}
	}
	return ""
}

func TestCommandOfFindsAForkedTool(t *testing.T) {
	e, err := parser.ParseExpr(`exec.CommandContext(ctx, "/usr/sbin/nft", "-f", file)`)
	if err != nil {
		t.Fatal(err)
	}
	if got := commandOf(e); got != "/usr/sbin/nft" {
		t.Errorf("commandOf = %q, want /usr/sbin/nft", got)
	}
}
