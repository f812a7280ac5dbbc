package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// Host is the host that is looked at, and what it is to be.
type Host struct {
	Root   string       // "" is the host itself; tests give a folder with proc, sys, dev and etc
	Blade  policy.Blade // what the policy wants of it; without a name only what every blade needs is looked at
	Policy string       // folder of policy files
	State  string       // folder of the daemon's state
	Images string       // folder of base images; empty: not known

	Owners func(folder string) error // tries whether files of a folder can be shown with other owners (TryOwners); nil: not tried
	Quotas func(folder string) error // says whether a folder's file system can bound what a container takes (quota.Kept); nil: not asked

	Features func(ctx context.Context) error // tries what the rules need of the kernel; nil: judged by its modules
	Waiting  []api.Waiting                   // what the daemon cannot do
}

// check looks at one thing. Nothing found means that it is well.
type check struct {
	name string
	run  func(ctx context.Context, h Host) []finding
}

// finding is what a check found, and how it is fixed where that is safe.
type finding struct {
	api.Finding
	fix func() error
}

func checks() []check {
	return []check{
		{"kernel", kernel},
		{"sysctl", sysctls},
		{"neighbours", neighbours},
		{"conntrack", conntrack},
		{"bridge filter", bridgeNetfilter},
		{"trunk", trunk},
		{"management", management},
		{"names", names},
		{"other programs", others},
		{"kvm", kvm},
		{"libvirt", libvirt},
		{"cgroups", cgroups},
		{"user namespaces", userNamespaces},
		{"owners", owners},
		{"shares of the disk", shares},
		{"clock", clock},
		{"disk", disk},
		{"agent", agent},
	}
}

// Run does every check, fixes what may be fixed when it is asked to, and returns one finding or more a check, in a written order.
func Run(ctx context.Context, h Host, fix bool) []api.Finding {
	out := []api.Finding{}
	for _, c := range checks() {
		found := c.run(ctx, h)
		if len(found) == 0 {
			out = append(out, api.Finding{Check: c.name, Level: api.Well})
		}
		for _, f := range found {
			f.Check, f.Fixable = c.name, f.fix != nil
			if fix && f.fix != nil {
				if err := f.fix(); err != nil {
					f.Message += fmt.Sprintf("; it could not be fixed: %v", err)
				} else {
					f.Fixed = true
				}
			}
			out = append(out, f.Finding)
		}
	}
	return out
}

func wrong(message, remedy string) finding {
	return finding{Finding: api.Finding{Level: api.Wrong, Message: message, Remedy: remedy}}
}

func doubtful(message, remedy string) finding {
	return finding{Finding: api.Finding{Level: api.Doubtful, Message: message, Remedy: remedy}}
}

func (h Host) path(name string) string { return filepath.Join("/", h.Root, name) }

func (h Host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// read returns a file's text without the newline at its end; empty when it cannot be read.
func (h Host) read(name string) string {
	data, err := os.ReadFile(h.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// number reads a file that holds one; false: it is not there, or holds none.
func (h Host) number(name string) (int, bool) {
	n, err := strconv.Atoi(h.read(name))
	return n, err == nil
}

// write returns a fix that writes a value into a file below /proc or /sys.
func (h Host) write(name, value string) func() error {
	return func() error {
		err := os.WriteFile(h.path(name), []byte(value+"\n"), 0o644)
		if errors.Is(err, fs.ErrPermission) {
			return errors.New("permission denied: be root")
		}
		return err
	}
}

// guests counts the blade's guests of one driver.
func (h Host) guests(d policy.Driver) int {
	n := 0
	for _, g := range h.Blade.Guests {
		if g.Driver == d {
			n++
		}
	}
	return n
}
