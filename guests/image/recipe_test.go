package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/policy"
)

func TestBuiltinRecipes(t *testing.T) {
	recipes, err := Recipes("")
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]policy.Driver{
		"director": policy.DriverKVM, "dns": policy.DriverLXC, "ldap": policy.DriverLXC, "proxy": policy.DriverLXC, "web": policy.DriverLXC,
	} {
		r, ok := recipes[name]
		if !ok || r.Kind != kind {
			t.Errorf("%s: %v, kind %q", name, ok, r.Kind)
		}
	}
}

func TestParseRecipe(t *testing.T) {
	const base = "name: a\nkind: lxc\nsuite: bookworm\ncommand: [/bin/a]\n"
	cases := []struct {
		name, text string
		want       []string // each in the error; none: no error
	}{
		{"whole", base, nil},
		{"unknown key", base + "packges: [x]\n", []string{"5:1", `"packges"`, "packages"}},
		{"no yaml", "name: [", []string{"parse recipe"}},
		{"name twice", base + "name: b\n", []string{"5:1", "second time"}},
		{"list for a word", base + "halt: [x]\n", []string{"5:7", "single value"}},
		{"word for a list", base + "packages: nginx\n", []string{"5:11", "a list"}},
		{"two documents", base + "---\n" + base, []string{"one document"}},
		{"path in a name", strings.Replace(base, "name: a", "name: ../a", 1), []string{"../a"}},
		{"option as a package", base + "packages: [--hook=x]\n", []string{"--hook=x"}},
		{"list as a package", base + "packages: ['a,b']\n", []string{"a,b"}},
		{"option as a suite", strings.Replace(base, "bookworm", "-x", 1), []string{"suite"}},
		{"file outside", base + "files: [{path: /../etc/passwd, content: x}]\n", []string{"/../etc/passwd"}},
		{"relative file", base + "files: [{path: etc/passwd, content: x}]\n", []string{"etc/passwd"}},
		{"mode", base + "files: [{path: /a, mode: '9', content: x}]\n", []string{"octal"}},
		{"remove the root", base + "remove: [/]\n", []string{"remove"}},
		{"no command", strings.Replace(base, "command: [/bin/a]\n", "", 1), []string{"needs a command"}},
		{"quotes in a command", base[:len(base)-2] + ", 'a\"b c']" + "\n", nil},
		{"halt", base + "halt: 9\n", []string{"not a signal"}},
		{"modules for a container's machine", base + "modules: [ip_vs]\ndisk: 2GiB\n", nil},
		{"disk of a container's machine", base + "disk: 1MiB\n", []string{"disk"}},
		{"certificate", base + "certificates: [{cert: a, key: /b, names: []}]\n", []string{"not clean", "no names"}},
		{"kind", strings.Replace(base, "lxc", "xen", 1), []string{"lxc or kvm"}},
		{"disk", "name: a\nkind: kvm\nsuite: bookworm\ndisk: 1MiB\n", []string{"disk"}},
		{"huge disk", "name: a\nkind: kvm\nsuite: bookworm\ndisk: 99999999GiB\n", []string{"disk"}},
		{"machine", "name: a\nkind: kvm\nsuite: bookworm\ndisk: 64MiB\n", nil},
		{"machine with a command", "name: a\nkind: kvm\nsuite: bookworm\ndisk: 64MiB\ncommand: [/a]\nhalt: SIGQUIT\n", nil},
		{"machine with a signal for nobody", "name: a\nkind: kvm\nsuite: bookworm\ndisk: 64MiB\nhalt: SIGQUIT\n", []string{"no command"}},
		{"machine with capabilities", "name: a\nkind: kvm\nsuite: bookworm\ndisk: 64MiB\ncapabilities: [kill]\n", []string{"for lxc"}},
		{"all at once", "name: A\nkind: lxc\nsuite: B\ncommand: [a]\n", []string{"name", "suite", "command"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseRecipe([]byte(c.text))
			if len(c.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
		})
	}
}

// A container's recipe makes a machine too; a machine's makes no container.
func TestRecipeFor(t *testing.T) {
	recipes, err := Recipes("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "dns", "ldap", "proxy"} {
		own := recipes[name]
		if got, err := own.For(policy.DriverLXC); err != nil || got.Kind != policy.DriverLXC || len(got.Modules) > 0 {
			t.Errorf("%s for its own driver: %+v, %v", name, got, err)
		}
		machine, err := own.For(policy.DriverKVM)
		if err != nil {
			t.Fatal(err)
		}
		if err := machine.check(); err != nil || machine.Kind != policy.DriverKVM || !slices.Equal(machine.Command, own.Command) ||
			!slices.Contains(machine.Modules, "virtio_net") || machine.Cmdline == "" || len(machine.Capabilities) > 0 {
			t.Errorf("%s for machines: %+v, %v", name, machine, err)
		}
		before, _ := own.digest(nil)
		after, _ := machine.digest(nil)
		if before == after {
			t.Errorf("%s: the two have one digest", name)
		}
	}
	if _, err := recipes["director"].For(policy.DriverLXC); err == nil || !strings.Contains(err.Error(), "for kvm guests only") {
		t.Errorf("director for containers: %v", err)
	}
}

// Whatever a recipe says, what passes the check names no file outside the tree and no option of a tool.
func FuzzParseRecipe(f *testing.F) {
	for _, name := range []string{"web", "director", "dns", "ldap", "proxy"} {
		text, err := builtin.ReadFile("recipes/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("name: a\nkind: lxc\nsuite: b\ncommand: [/a]\nremove: [/a/../b]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRecipe(text)
		if err != nil {
			return
		}
		paths := slices.Clone(r.Remove)
		for _, x := range r.Files {
			paths = append(paths, x.Path)
		}
		for _, p := range paths {
			if !strings.HasPrefix(p, "/") || strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") || p == "/" {
				t.Errorf("path %q", p)
			}
		}
		for _, w := range slices.Concat(r.Packages, r.Modules, []string{r.Suite, r.Name}) {
			if strings.HasPrefix(w, "-") || strings.ContainsAny(w, ", \n/") {
				t.Errorf("word %q", w)
			}
		}
		if _, err := r.digest(nil); err != nil {
			t.Error(err)
		}
	})
}

func TestDigest(t *testing.T) {
	recipes, err := Recipes("")
	if err != nil {
		t.Fatal(err)
	}
	r := recipes["web"]
	digest := func(r Recipe, helper string) string {
		d, err := r.digest([]byte(helper))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	other := r
	other.Halt = "SIGTERM"
	same := recipes["web"]
	if digest(r, "") != digest(same, "") || digest(r, "") == digest(other, "") || digest(r, "") == digest(r, "x") {
		t.Error("the digest does not follow the inputs")
	}
	a := identity("web", "r", []string{"b=1", "a=2"})
	if a != identity("web", "r", []string{"a=2", "b=1"}) || a == identity("web", "r", []string{"a=2", "b=2"}) || a == identity("web", "q", []string{"a=2", "b=1"}) {
		t.Error("the identity does not follow the packages")
	}
	if name, digest, err := splitID(a); err != nil || name != "web" || len(digest) != 12 {
		t.Errorf("%s: %s, %s, %v", a, name, digest, err)
	}
}
