package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// module is something that bladenet needs of the kernel.
type module struct {
	name, does string
	tried      bool // Features tries what it does
}

func modules() []module {
	return []module{
		{"8021q", "VLAN links", true},
		{"bridge", "bridges", true},
		{"nf_tables", "the filter", true},
		{"nft_meta_bridge", "the filter", true},
		{"nf_conntrack_bridge", "state in the filter", true},
		{"nft_ct", "state in the filter", true},
		{"nft_limit", "limits in the filter", true},
		{"veth", "containers' ports", false},
		{"tun", "machines' ports", false},
		{"overlay", "containers' root file systems", false},
	}
}

const debianKernels = "linux-image-amd64 and linux-image-cloud-amd64 of Debian have it"

// kernel tries what the rules need where it can, and looks for modules otherwise.
func kernel(ctx context.Context, h Host) []finding {
	var out []finding
	if !h.exists("proc/sys/net/ipv6/conf") {
		out = append(out, wrong("the kernel has no IPv6", "boot without ipv6.disable=1"))
	}
	if h.Features != nil {
		if err := h.Features(ctx); err != nil {
			for line := range strings.Lines(err.Error()) {
				out = append(out, wrong(strings.TrimSpace(line), "load the module, and name it in a file of /etc/modules-load.d"))
			}
		}
	}
	release := h.read("proc/sys/kernel/osrelease")
	tree := "lib/modules/" + release
	if !h.exists(tree+"/modules.dep") && !h.exists(tree+"/modules.builtin") {
		return append(out, doubtful("/"+tree+" is not there: modules that are not loaded yet cannot be", "reboot into an installed kernel, or install the running one's modules"))
	}
	for _, m := range modules() {
		if (h.Features == nil || !m.tried) && !h.hasModule(tree, m.name) {
			out = append(out, wrong(fmt.Sprintf("kernel %s has no %s: it is for %s", release, m.name, m.does), "use a kernel that has it: "+debianKernels))
		}
	}
	return out
}

// hasModule says whether a module is loaded, built in, or there to be loaded.
func (h Host) hasModule(tree, name string) bool {
	if h.exists("sys/module/" + name) {
		return true
	}
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		f, err := os.Open(h.path(filepath.Join(tree, list)))
		if err != nil {
			continue
		}
		found := lists(f, name)
		f.Close()
		if found {
			return true
		}
	}
	return false
}

// lists looks for a module in a list of paths, one at the start of each line: kernel/net/8021q/8021q.ko.xz: …
func lists(f *os.File, name string) bool {
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		path, _, _ := strings.Cut(lines.Text(), ":")
		base, _, _ := strings.Cut(filepath.Base(path), ".")
		if strings.ReplaceAll(base, "-", "_") == name {
			return true
		}
	}
	return false
}
