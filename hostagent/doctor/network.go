package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

const least = 1500 // bytes: what a guest's interface takes

// trunk looks at the NIC that carries every VLAN.
func trunk(_ context.Context, h Host) []finding {
	name := h.Blade.Trunk
	if name == "" {
		return nil
	}
	if !h.exists("sys/class/net/" + name) {
		return []finding{wrong(fmt.Sprintf("there is no NIC %s, the trunk of %s", name, h.Blade.Name),
			fmt.Sprintf("correct blades.%s.trunk; there are %s", h.Blade.Name, strings.Join(h.nics(), ", ")))}
	}
	var out []finding
	if n, ok := h.number("sys/class/net/" + name + "/mtu"); ok && n < least {
		out = append(out, wrong(fmt.Sprintf("the MTU of %s is %d", name, n), fmt.Sprintf("ip link set %s mtu %d, and in the host's network configuration", name, least)))
	}
	if h.read("sys/class/net/"+name+"/carrier") == "0" {
		out = append(out, wrong(name+" has no carrier", "look at the cable and at the switch's port"))
	}
	if master, err := os.Readlink(h.path("sys/class/net/" + name + "/master")); err == nil {
		out = append(out, wrong(fmt.Sprintf("%s is a port of %s: frames go there too", name, filepath.Base(master)),
			"take it out of the host's network configuration"))
	}
	if h.Root == "" {
		out = append(out, trunkAddresses(h.Blade)...)
		out = append(out, largeReceive(name)...)
	}
	return out
}

// trunkAddresses are the addresses of the trunk itself: the blade has none there.
func trunkAddresses(b policy.Blade) []finding {
	nic, err := net.InterfaceByName(b.Trunk)
	if err != nil {
		return nil
	}
	addrs, err := nic.Addrs()
	if err != nil {
		return nil
	}
	var out []finding
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok && !p.IP.IsLinkLocalUnicast() {
			out = append(out, wrong(fmt.Sprintf("%s has the address %s: the filter drops what comes to it", b.Trunk, a),
				fmt.Sprintf("give the blade's own address to another NIC, blades.%s.management", b.Name)))
		}
	}
	return out
}

// largeReceive looks whether the NIC merges received packets so that they cannot be forwarded as they were.
func largeReceive(name string) []finding {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	flags, err := ethtoolFlags(fd, name)
	if err != nil || flags&flagLRO == 0 {
		return nil
	}
	f := wrong(name+" merges received packets (LRO), which breaks what is forwarded", fmt.Sprintf("ethtool -K %s lro off, and in the host's network configuration", name))
	f.fix = func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return setEthtoolFlags(fd, name, flags&^flagLRO)
	}
	return []finding{f}
}

func management(_ context.Context, h Host) []finding {
	name := h.Blade.Management
	switch {
	case name == "":
		return nil
	case !h.exists("sys/class/net/" + name):
		return []finding{wrong(fmt.Sprintf("there is no NIC %s, the management NIC of %s: hosts rules protect nothing", name, h.Blade.Name),
			fmt.Sprintf("correct blades.%s.management; there are %s", h.Blade.Name, strings.Join(h.nics(), ", ")))}
	case len(h.Blade.Hosts) == 0:
		return []finding{doubtful("no hosts rule says who may reach the blade: everybody may", "write hosts rules; the policy reference shows one")}
	}
	return nil
}

// names looks for links that have a name of ours and are not ours.
func names(_ context.Context, h Host) []finding {
	var wanted []string
	for _, s := range h.Blade.Segments {
		wanted = append(wanted, s.Link, s.Bridge)
	}
	for _, g := range h.Blade.Guests {
		for _, p := range g.Ports {
			wanted = append(wanted, p.Name)
		}
	}
	var out []finding
	for _, name := range wanted {
		folder := "sys/class/net/" + name
		if h.exists(folder) && !strings.HasPrefix(h.read(folder+"/ifalias"), "bladenet "+name+" ") {
			out = append(out, wrong(fmt.Sprintf("there is a link %s that bladenet did not make", name),
				fmt.Sprintf("rename or delete it: ip link show %s", name)))
		}
	}
	return out
}

// others looks for programs that change what is ours.
func others(_ context.Context, h Host) []finding {
	var out []finding
	if strings.Contains(h.read("etc/nftables.conf"), "flush ruleset") && h.exists("etc/systemd/system/sysinit.target.wants/nftables.service") {
		out = append(out, doubtful("nftables.service flushes every table when it starts or reloads, ours too",
			"in /etc/nftables.conf, flush your own tables only: delete table inet filter"))
	}
	if h.exists("run/NetworkManager") {
		if !strings.Contains(h.all("etc/NetworkManager/conf.d"), "unmanaged-devices") {
			out = append(out, doubtful("NetworkManager runs and may take our links for its own",
				"[keyfile] unmanaged-devices=interface-name:vlan*;interface-name:br*, in a file of /etc/NetworkManager/conf.d"))
		}
	}
	for program, why := range map[string]string{"run/firewalld": "firewalld", "run/ufw.lock": "ufw"} {
		if h.exists(program) {
			out = append(out, doubtful(why+" runs: it does not know bridges' guests, and some of its reloads flush every table", "remove it; hosts rules protect the blade"))
		}
	}
	return out
}

// all is the text of every file in a folder.
func (h Host) all(folder string) string {
	files, _ := filepath.Glob(h.path(folder) + "/*") // the pattern is well formed
	var text strings.Builder
	for _, f := range files {
		text.WriteString(h.read(strings.TrimPrefix(f, h.path("/"))) + "\n")
	}
	return text.String()
}

// nics are the names of the host's links, those of bladenet left out.
func (h Host) nics() []string {
	links, _ := filepath.Glob(h.path("sys/class/net") + "/*") // the pattern is well formed
	var out []string
	for _, l := range links {
		name := filepath.Base(l)
		if name != "lo" && !strings.HasPrefix(h.read("sys/class/net/"+name+"/ifalias"), "bladenet ") {
			out = append(out, name)
		}
	}
	return out
}
