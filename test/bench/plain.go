package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/guests/lxc/config"
)

// plainTools make one real server the way a careful administrator does who has lxc, iproute2 and nftables, and knows what a guest of ours
// gets: the same links, sysctls, addresses, rules for its ports, limits, capabilities and filter of system calls.
type plainTools struct {
	dir, base    string // lxc's path, and the container that is cloned
	unprivileged bool
}

// plainIDs is the first id of the plain tools' containers. They share their range: a clone over an overlay has the owners of its base, and
// lxc 5 has no idmapped mount for an overlay's lower layer.
const plainIDs = 100000

const plainName = "plain-1"

// newPlain makes what one administrator makes once: the container that lxc-copy clones, and the table whose sets each server is added to.
func newPlain(dir string, img image.Image, unprivileged bool) (plainTools, error) {
	p := plainTools{dir: dir, base: img.ID, unprivileged: unprivileged} // lxc-copy wants the original's name in the path of its files
	base, rootfs := filepath.Join(dir, p.base), img.Rootfs()
	if err := os.MkdirAll(base, 0o755); err != nil {
		return p, err
	}
	if unprivileged { // no mount of the plain tools shows an image's files with other owners: they are copied and given them
		rootfs = filepath.Join(base, "rootfs")
		if _, err := command("", "cp", "-a", img.Rootfs(), rootfs); err != nil {
			return p, err
		}
		if err := shiftOwners(rootfs, plainIDs); err != nil {
			return p, err
		}
	}
	seccomp := filepath.Join(base, "seccomp")
	text := "lxc.uts.name = base\nlxc.rootfs.path = dir:" + rootfs + "\nlxc.namespace.share.net = /run/netns/" + plainName + "\n" +
		"lxc.init.cmd = " + strings.Join(img.Command, " ") + "\nlxc.apparmor.profile = unconfined\nlxc.autodev = 1\nlxc.tty.max = 0\nlxc.pty.max = 64\n" +
		"lxc.cap.keep = chown dac_override fowner fsetid kill net_bind_service setgid setpcap setuid sys_chroot\nlxc.no_new_privs = 1\n" +
		"lxc.seccomp.profile = " + seccomp + "\nlxc.cgroup2.memory.max = 512M\nlxc.cgroup2.memory.swap.max = 0\nlxc.cgroup2.cpu.max = 100000 100000\n" +
		"lxc.cgroup2.pids.max = 1024\n"
	if unprivileged {
		text += fmt.Sprintf("lxc.idmap = u 0 %d %d\nlxc.idmap = g 0 %d %d\nlxc.mount.auto = proc:mixed\n", plainIDs, config.IDs, plainIDs, config.IDs)
	} else {
		text += "lxc.mount.auto = proc:mixed sys:ro\n"
	}
	return p, errors.Join(os.WriteFile(seccomp, config.Seccomp(), 0o644), os.WriteFile(filepath.Join(base, "config"), []byte(text), 0o600))
}

// shiftOwners adds to the owners of all files of a tree.
func shiftOwners(tree string, by int) error {
	return filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if err := os.Lchown(path, int(st.Uid)+by, int(st.Gid)+by); err != nil || info.Mode()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chmod(path, info.Mode()) // a change of owner takes set-user-id away
	})
}

// What the administrator has once: a table with sets to which each server's ports and addresses are added. It judges the ports of the plain
// tools only.
const plainTable = `table bridge plain {
	set ports { type ifname; }
	set own4 { type ifname . ether_addr . ipv4_addr; }
	set own6 { type ifname . ether_addr . ipv6_addr; }
	set speak4 { type ifname . ether_addr . ipv4_addr; }
	set speak6 { type ifname . ether_addr . ipv6_addr; }
	set serves4 { type ifname . ipv4_addr . inet_proto . inet_service; }
	set serves6 { type ifname . ipv6_addr . inet_proto . inet_service; }
	set answers4 { type ifname . ipv4_addr . inet_proto . inet_service; }
	set answers6 { type ifname . ipv6_addr . inet_proto . inet_service; }
	set admin4 { type ipv4_addr . inet_proto . inet_service; }
	set admin6 { type ipv6_addr . inet_proto . inet_service; }
	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname . ether saddr . ip saddr @speak4 iifname . ip saddr . meta l4proto . th sport @answers4 notrack accept
		iifname . ether saddr . ip6 saddr @speak6 iifname . ip6 saddr . meta l4proto . th sport @answers6 notrack accept
		iifname . ether saddr . ip saddr @own4 accept
		iifname . ether saddr . ip6 saddr @own6 accept
		iifname @ports ether type != arp drop
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		oifname . ip daddr . meta l4proto . th dport @serves4 accept
		oifname . ip6 daddr . meta l4proto . th dport @serves6 accept
		oifname @ports ct state established,related accept
		oifname @ports ip saddr 203.0.113.240/28 ip daddr . meta l4proto . th dport @admin4 accept
		oifname @ports ip6 saddr 2001:db8:ad::/64 ip6 daddr . meta l4proto . th dport @admin6 accept
		oifname @ports ether type != arp drop
	}
}
`

// What he types for one real server, in this order.
const (
	plainElements = `ports { plain-1.0, plain-1.1 }
own4 { plain-1.0 . 02:00:00:00:01:00 . 198.51.100.99, plain-1.1 . 02:00:00:00:01:01 . 10.12.3.99 }
own6 { plain-1.0 . 02:00:00:00:01:00 . 2001:db8:130::99, plain-1.0 . 02:00:00:00:01:00 . fe80::ff:fe00:100, plain-1.1 . 02:00:00:00:01:01 . 2001:db8:120::99, plain-1.1 . 02:00:00:00:01:01 . fe80::ff:fe00:101 }
speak4 { plain-1.0 . 02:00:00:00:01:00 . 203.0.113.10 }
speak6 { plain-1.0 . 02:00:00:00:01:00 . 2001:db8:5::10 }
serves4 { plain-1.1 . 203.0.113.10 . tcp . 80 }
serves6 { plain-1.1 . 2001:db8:5::10 . tcp . 80 }
answers4 { plain-1.0 . 203.0.113.10 . tcp . 80 }
answers6 { plain-1.0 . 2001:db8:5::10 . tcp . 80 }
admin4 { 198.51.100.99 . tcp . 22, 10.12.3.99 . tcp . 22 }
admin6 { 2001:db8:130::99 . tcp . 22, 2001:db8:120::99 . tcp . 22 }
`
	plainLinks = `netns add plain-1
link add plain-1.0 address fe:00:00:00:01:00 type veth peer name eth0 address 02:00:00:00:01:00 netns plain-1
link add plain-1.1 address fe:00:00:00:01:01 type veth peer name eth1 address 02:00:00:00:01:01 netns plain-1
link set plain-1.0 addrgenmode none master br130
link set plain-1.1 addrgenmode none master br120
link set plain-1.0 type bridge_slave learning off flood off
link set plain-1.1 type bridge_slave learning off flood off
`
	plainPins = `fdb replace 02:00:00:00:01:00 dev plain-1.0 master static sticky
fdb replace 02:00:00:00:01:01 dev plain-1.1 master static sticky
`
	plainUp = `link set plain-1.0 up
link set plain-1.1 up
`
	plainInside = `link set lo up
link set eth0 up
link set eth1 up
addr add 198.51.100.99/25 dev eth0
addr add 2001:db8:130::99/64 dev eth0 nodad
addr add 10.12.3.99/22 dev eth1
addr add 2001:db8:120::99/64 dev eth1 nodad
addr add 203.0.113.10/32 dev lo
addr add 2001:db8:5::10/128 dev lo preferred_lft 0 nodad
route add default via 198.51.100.1
route add ::/0 via 2001:db8:130::1
`
)

// elementsOf writes the elements as nft takes them.
func elementsOf(verb string) string {
	var b strings.Builder
	for line := range strings.Lines(plainElements) {
		b.WriteString(verb + " element bridge plain " + line)
	}
	return b.String()
}

// typed is one command of the administrator's, and what he gives it to read.
type typed struct {
	stdin string
	args  []string
}

// typeAll types commands one after the other, until one fails.
func typeAll(commands []typed) error {
	for _, c := range commands {
		if _, err := command(c.stdin, c.args[0], c.args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// make makes the server, until it answers.
func (p plainTools) make() error {
	sysctls := []string{
		"net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2", "net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0",
		"net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.eth0.accept_ra=0", "net.ipv6.conf.eth1.accept_ra=0", "net.ipv6.conf.eth0.accept_dad=0",
		"net.ipv6.conf.eth1.accept_dad=0",
	}
	if p.unprivileged {
		sysctls = append(sysctls, "net.ipv4.ip_unprivileged_port_start=0", "net.ipv4.ping_group_range=0 2147483647")
	}
	commands := []typed{
		{plainLinks, []string{"ip", "-batch", "-"}},
		{plainPins, []string{"bridge", "-batch", "-"}},
		{elementsOf("add"), []string{"nft", "-f", "-"}},
		{plainUp, []string{"ip", "-batch", "-"}},
		{"", append([]string{"ip", "netns", "exec", plainName, "sysctl", "-q", "-w"}, sysctls...)},
		{plainInside, []string{"ip", "-n", plainName, "-batch", "-"}},
		{"", []string{"lxc-copy", "-P", p.dir, "-p", p.dir, "-n", p.base, "-N", plainName, "-s", "-B", "overlay"}},
	}
	if p.unprivileged {
		owner := fmt.Sprintf("%d:%d", plainIDs, plainIDs)
		commands = append(commands, typed{"", []string{"chown", owner, filepath.Join(p.dir, plainName, "overlay", "delta")}})
	}
	commands = append(commands, typed{"", []string{"lxc-start", "-P", p.dir, "-n", plainName}})
	if err := typeAll(commands); err != nil {
		return err
	}
	return answers("/run/netns/" + plainName)
}

// end takes the server away.
func (p plainTools) end() error {
	return typeAll([]typed{
		{"", []string{"lxc-stop", "-P", p.dir, "-n", plainName, "-k"}},
		{"", []string{"lxc-destroy", "-P", p.dir, "-n", plainName}},
		{elementsOf("delete"), []string{"nft", "-f", "-"}},
		{"", []string{"ip", "link", "del", plainName + ".0"}},
		{"", []string{"ip", "link", "del", plainName + ".1"}},
		{"", []string{"ip", "netns", "del", plainName}},
	})
}
