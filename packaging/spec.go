package main

import "slices"

// pkg is one Debian package.
type pkg struct {
	name, brief, about            string
	depends, recommends, suggests []string
	files                         []file
}

// file is one file of a package: copied, built, or what a built command writes.
type file struct {
	from, to string
	built    bool     // from the folder of commands
	made     []string // a built command and its arguments
	dir      bool     // an empty folder
}

func packages() []pkg {
	return []pkg{
		{
			name: "bladenet", brief: "network agent of a virtualization host",
			about: "Keeps the VLANs, bridges, packet filter and guests of a blade as a folder of\n" +
				"policy files says: KVM directors with IPVS, LXC real servers, and a filter\noutside of both.",
			depends:    []string{"libc6 (>= 2.34)", "lxc", "init-system-helpers"},
			recommends: []string{"libvirt-daemon-system", "qemu-system-x86", "bladenet-images (= $VERSION)", "nftables", "chrony"},
			suggests:   []string{"conntrack", "ethtool"},
			files: slices.Concat([]file{
				{from: "bladed", to: "usr/sbin/bladed", built: true},
				{from: "bladectl", to: "usr/bin/bladectl", built: true},
				{to: "etc/bladenet", dir: true},
				{from: "docs/policy.schema.json", to: "usr/share/bladenet/policy.schema.json"},
				{from: "packaging/man/bladed.8", to: "usr/share/man/man8/bladed.8.gz"},
				{made: []string{"bladectl", "man"}, to: "usr/share/man/man8/bladectl.8.gz"},
				{made: []string{"bladectl", "completion", "bash"}, to: "usr/share/bash-completion/completions/bladectl"},
				{made: []string{"bladectl", "completion", "zsh"}, to: "usr/share/zsh/vendor-completions/_bladectl"},
				{made: []string{"bladectl", "completion", "fish"}, to: "usr/share/fish/vendor_completions.d/bladectl.fish"},
			}, under("packaging/root")),
		},
		{
			name: "bladenet-guest", brief: "helper inside a director of bladenet",
			about: "A static program that is put into the image of a KVM director: it applies\nwhat the blade hands over, checks real servers, and supervises FRR.",
			files: []file{{from: "bladeguest", to: "usr/bin/bladeguest", built: true}},
		},
		{
			name: "bladenet-images", brief: "recipes and tools for the images of bladenet's guests",
			about:   "What `bladectl image build director web` needs, and the recipes that it\nfollows, to copy and change: bladectl image build --recipes FOLDER NAME.",
			depends: []string{"bladenet (= $VERSION)", "bladenet-guest (= $VERSION)", "mmdebstrap", "e2fsprogs", "cpio", "busybox-static", "kmod"},
			files: []file{
				{from: "guests/image/recipes/director.yaml", to: "usr/share/bladenet/recipes/director.yaml"},
				{from: "guests/image/recipes/dns.yaml", to: "usr/share/bladenet/recipes/dns.yaml"},
				{from: "guests/image/recipes/ldap.yaml", to: "usr/share/bladenet/recipes/ldap.yaml"},
				{from: "guests/image/recipes/proxy.yaml", to: "usr/share/bladenet/recipes/proxy.yaml"},
				{from: "guests/image/recipes/web.yaml", to: "usr/share/bladenet/recipes/web.yaml"},
			},
		},
	}
}
