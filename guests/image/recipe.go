package image

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

//go:embed recipes/*.yaml
var builtin embed.FS

// Recipe says what an image is made of.
type Recipe struct {
	Name     string        `json:"name"`
	Kind     policy.Driver `json:"kind"`     // what it is built for, unless somebody asks for the other (For)
	Suite    string        `json:"suite"`    // Debian suite
	Packages []string      `json:"packages"` // besides the suite's essential ones
	Files    []File        `json:"files,omitempty"`
	Certs    []Certificate `json:"certificates,omitempty"`
	Commands []string      `json:"commands,omitempty"` // run by sh inside the tree, after the files are there
	Remove   []string      `json:"remove,omitempty"`   // patterns below /, removed last

	Command      []string `json:"command,omitempty"`      // argument vector of the service: init of a container, the helper's child in a machine
	Halt         string   `json:"halt,omitempty"`         // signal that ends it
	Capabilities []string `json:"capabilities,omitempty"` // lxc: kept besides the driver's own

	Modules []string `json:"modules,omitempty"` // kvm: kernel modules in the root, their dependencies follow
	Disk    string   `json:"disk,omitempty"`    // kvm: size of the root file system, "512MiB"
	Cmdline string   `json:"cmdline,omitempty"` // kvm: kernel command line
}

// File is a file of a recipe.
type File struct {
	Path    string `json:"path"`
	Mode    string `json:"mode,omitempty"` // octal, 0644 when empty
	Content string `json:"content"`
}

// Certificate is a self-signed certificate that the build makes, for services that cannot start without one.
type Certificate struct {
	Cert  string   `json:"cert"`
	Key   string   `json:"key"`
	Names []string `json:"names"`
}

// Recipes are the recipes by name: the built-in ones, and over them those of a folder (*.yaml), if one is given.
func Recipes(dir string) (map[string]Recipe, error) {
	out := map[string]Recipe{}
	if err := load(builtin, "recipes", "built-in ", out); err != nil {
		return nil, err
	}
	if dir == "" {
		return out, nil
	}
	if err := load(os.DirFS(dir), ".", dir+"/", out); err != nil {
		return nil, err
	}
	return out, nil
}

func load(from fs.FS, dir, where string, out map[string]Recipe) error {
	entries, err := fs.ReadDir(from, dir)
	if err != nil {
		return fmt.Errorf("read recipes: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		text, err := fs.ReadFile(from, filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("read recipes: %w", err)
		}
		r, err := ParseRecipe(text)
		if err != nil {
			return fmt.Errorf("%s%s: %w", where, e.Name(), err)
		}
		if want := strings.TrimSuffix(e.Name(), ".yaml"); r.Name != want {
			return fmt.Errorf("%s%s: name is %q, the file says %q", where, e.Name(), r.Name, want)
		}
		out[r.Name] = r
	}
	return nil
}

// ParseRecipe reads one recipe (YAML) and checks it; an error names every mistake, those of syntax with line and column.
func ParseRecipe(text []byte) (Recipe, error) {
	if len(text) > 1<<20 {
		return Recipe{}, errors.New("parse recipe: larger than 1 MiB")
	}
	r, err := decodeRecipe(string(text))
	if err != nil {
		return Recipe{}, fmt.Errorf("parse recipe: %w", err)
	}
	if err := r.check(); err != nil {
		return Recipe{}, fmt.Errorf("check recipe %q: %w", r.Name, err)
	}
	return r, nil
}

// What names look like. They are compiled when a recipe is checked: every start of a program that links this package would pay for it.
const (
	suitePattern   = `^[a-z][a-z0-9-]{0,31}$`
	packagePattern = `^[a-z0-9][a-z0-9+.-]{0,99}$`
	modulePattern  = `^[a-z0-9][a-z0-9_-]{0,63}$`
	signalPattern  = `^SIG[A-Z0-9+]{1,12}$`
	capPattern     = `^[a-z_]{1,32}$`
)

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

// check finds every mistake of a recipe.
func (r Recipe) check() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!isName(r.Name), "name %q: small letters, digits and hyphens, at most 40", r.Name)
	bad(!matches(suitePattern, r.Suite), "suite %q: not a Debian suite", r.Suite)
	words(bad, "package", packagePattern, r.Packages)
	words(bad, "module", modulePattern, r.Modules)
	words(bad, "capability", capPattern, r.Capabilities)
	for _, f := range r.Files {
		bad(!inTree(f.Path), "file %q: not a clean absolute path", f.Path)
		_, err := f.mode()
		bad(err != nil, "file %s: mode %q: not octal", f.Path, f.Mode)
	}
	for _, c := range r.Certs {
		bad(!inTree(c.Cert) || !inTree(c.Key), "certificate %q, %q: not clean absolute paths", c.Cert, c.Key)
		bad(len(c.Names) == 0, "certificate %s: no names", c.Cert)
	}
	for _, p := range r.Remove {
		bad(!inTree(p), "remove %q: not a clean absolute path", p)
	}
	bad(len(r.Command) > 0 && !inTree(r.Command[0]), "command %q: not a clean absolute path", r.Command)
	for _, word := range r.Command {
		bad(strings.ContainsRune(word, 0), "command %q: a zero byte cannot be an argument", word)
	}
	bad(r.Halt != "" && !matches(signalPattern, r.Halt), "halt %q: not a signal", r.Halt)
	bad(strings.ContainsAny(r.Cmdline, "\n\x00"), "cmdline: line break")
	if r.Disk != "" || r.Kind == policy.DriverKVM {
		_, err := r.diskSize()
		bad(err != nil, "disk %q: a size like 512MiB, 64MiB to 64GiB", r.Disk)
	}
	switch r.Kind {
	case policy.DriverLXC:
		bad(len(r.Command) == 0, "a container needs a command")
	case policy.DriverKVM:
		bad(r.Halt != "" && len(r.Command) == 0, "halt %s: there is no command that it could end", r.Halt)
		bad(len(r.Capabilities) > 0, "capabilities are for lxc")
	default:
		bad(true, "kind %q: lxc or kvm", r.Kind)
	}
	return errors.Join(errs...)
}

// What a service's machine has where its recipe says nothing else.
const (
	machineDisk    = "1GiB"
	machineCmdline = "console=ttyS0 quiet panic=-1 net.ifnames=0 root=/dev/vda rw init=/sbin/bladeguest"
)

// machineModules are those that every machine has besides its recipe's: network, entropy, the helper's channel, the power button.
var machineModules = []string{"virtio_net", "virtio_rng", "vmw_vsock_virtio_transport", "button", "evdev"}

// machinePackages are what a machine's build and start need of its tree.
var machinePackages = []string{"kmod"}

// For is the recipe for guests of a driver: as it stands for those of its kind, and for machines what a container's recipe makes with a
// kernel around its service.
func (r Recipe) For(driver policy.Driver) (Recipe, error) {
	switch {
	case driver == r.Kind || driver == "":
		return r, nil
	case driver != policy.DriverKVM:
		return Recipe{}, fmt.Errorf("recipe %s is for %s guests only: it cannot be built for %q", r.Name, r.Kind, driver)
	}
	r.Kind, r.Capabilities = policy.DriverKVM, nil // in a machine of its own root has them all
	r.Disk, r.Cmdline = cmp.Or(r.Disk, machineDisk), cmp.Or(r.Cmdline, machineCmdline)
	r.Modules, r.Packages = slices.Concat(machineModules, r.Modules), slices.Concat(machinePackages, r.Packages)
	return r, nil
}

func words(bad func(bool, string, ...any), what, pattern string, list []string) {
	re := regexp.MustCompile(pattern)
	for _, w := range list {
		bad(!re.MatchString(w), "%s %q: not a name", what, w)
	}
}

// inTree reports that a path stays below the root of the tree it is joined to.
func inTree(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/" && !strings.ContainsAny(path, "\n\x00")
}

func (f File) mode() (fs.FileMode, error) {
	if f.Mode == "" {
		return 0o644, nil
	}
	m, err := strconv.ParseUint(f.Mode, 8, 12)
	return fs.FileMode(m & 0o777), err
}

func (r Recipe) diskSize() (int64, error) {
	n, unit := r.Disk, int64(0)
	for suffix, size := range map[string]int64{"MiB": 1 << 20, "GiB": 1 << 30} {
		if cut, ok := strings.CutSuffix(r.Disk, suffix); ok {
			n, unit = cut, size
		}
	}
	count, err := strconv.ParseInt(n, 10, 32)
	if err != nil || unit == 0 || count*unit < 64<<20 || count*unit > 64<<30 {
		return 0, errors.New("no size")
	}
	return count * unit, nil
}

// digest covers everything that a build starts from; helper is the guest helper's binary, nil when none goes in.
func (r Recipe) digest(helper []byte) (string, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("digest recipe %s: %w", r.Name, err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "builder %d\n%s\n", builder, text)
	h.Write(helper)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// identity names an image by its inputs and by what the packages turned out to be.
func identity(name, recipe string, packages []string) string {
	h := sha256.New()
	fmt.Fprintln(h, recipe)
	for _, p := range slices.Sorted(slices.Values(packages)) {
		fmt.Fprintln(h, p)
	}
	return name + "-" + hex.EncodeToString(h.Sum(nil))[:12]
}
