package doctor

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bladenet/bladenet/guests/quota"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// tree is a host that is well: files below its root, by name.
func tree() map[string]string {
	files := map[string]string{
		"proc/sys/kernel/osrelease":                   "6.1.0-50-amd64\n",
		"proc/sys/net/ipv6/conf/all/disable_ipv6":     "0\n",
		"proc/sys/fs/inotify/max_user_instances":      "4096\n",
		"proc/sys/net/netfilter/nf_conntrack_max":     "262144\n",
		"proc/sys/net/netfilter/nf_conntrack_count":   "12\n",
		"proc/sys/net/bridge/bridge-nf-call-iptables": "0\n",
		"lib/modules/6.1.0-50-amd64/modules.dep":      "kernel/net/8021q/8021q.ko: kernel/net/802/mrp.ko\nkernel/net/bridge/bridge.ko:\nkernel/drivers/net/veth.ko.xz:\nkernel/net/bridge/netfilter/nft_meta_bridge.ko:\nkernel/net/bridge/netfilter/nf_conntrack_bridge.ko:\nkernel/fs/overlayfs/overlay.ko:\n",
		"lib/modules/6.1.0-50-amd64/modules.builtin":  "kernel/net/netfilter/nf_tables.ko\nkernel/drivers/net/tun.ko\n",
		"sys/module/nft_ct/refcnt":                    "1\n",
		"sys/module/nft_limit/refcnt":                 "1\n",
		"sys/class/net/eno1/mtu":                      "1500\n",
		"sys/class/net/eno1/carrier":                  "1\n",
		"sys/class/net/eno2/mtu":                      "1500\n",
		"sys/class/net/br120/ifalias":                 "bladenet br120 bridge of network service\n",
		"dev/kvm":                                     "",
		"dev/vhost-net":                               "",
		"dev/vhost-vsock":                             "",
		"run/libvirt/libvirt-sock":                    "",
		"sys/fs/cgroup/cgroup.controllers":            "cpuset cpu io memory hugetlb pids\n",
		"proc/sys/user/max_user_namespaces":           "15000\n",
		"etc/nftables.conf":                           "flush ruleset\n",
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		for i, n := range []string{"1024", "4096", "8192"} {
			files["proc/sys/net/"+family+"/neigh/default/gc_thresh"+string(rune('1'+i))] = n + "\n"
		}
	}
	return files
}

func host(t *testing.T, files map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return Host{Root: root, Blade: policy.Blade{
		Name: "b1", Trunk: "eno1", Management: "eno2", Hosts: []policy.Rule{{Name: "ssh"}},
		Segments: []policy.Segment{{Link: "vlan120", Bridge: "br120"}},
		Guests: []policy.Guest{
			{Name: "d1", Driver: policy.DriverKVM},
			{Name: "www-1", Driver: policy.DriverLXC, Ports: []policy.Port{{Name: "www-1.1", Network: "service"}}},
		},
		Peers: []policy.Peer{{Network: "service"}, {Network: "service"}, {Network: "other"}},
	}}
}

// troubles are the findings that are not well, a line each.
func troubles(found []api.Finding) []string {
	var out []string
	for _, f := range found {
		if f.Level != api.Well {
			out = append(out, string(f.Level)+" "+f.Check+": "+f.Message)
		}
		if f.Level != api.Well && f.Remedy == "" {
			out = append(out, f.Check+" has no remedy")
		}
	}
	return out
}

func TestAHostThatIsWell(t *testing.T) {
	found := Run(t.Context(), host(t, tree()), false)
	if bad := troubles(found); len(bad) > 0 {
		t.Errorf("found on a host that is well: %v", bad)
	}
	if len(found) != len(checks()) {
		t.Errorf("%d findings of %d checks", len(found), len(checks()))
	}
}

func TestEachTroubleIsFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(files map[string]string, h *Host)
		want   string
	}{
		{"no VLANs", func(f map[string]string, _ *Host) { f["lib/modules/6.1.0-50-amd64/modules.dep"] = "" }, "error kernel: kernel 6.1.0-50-amd64 has no 8021q: it is for VLAN links"},
		{"no IPv6", func(f map[string]string, _ *Host) { delete(f, "proc/sys/net/ipv6/conf/all/disable_ipv6") }, "the kernel has no IPv6"},
		{"no module tree", func(f map[string]string, _ *Host) {
			delete(f, "lib/modules/6.1.0-50-amd64/modules.dep")
			delete(f, "lib/modules/6.1.0-50-amd64/modules.builtin")
		}, "warning kernel: /lib/modules/6.1.0-50-amd64 is not there"},
		{"features", func(_ map[string]string, h *Host) {
			h.Features = func(context.Context) error { return errors.New("ct state: modprobe nf_conntrack_bridge") }
		}, "error kernel: ct state: modprobe nf_conntrack_bridge"},
		{"inotify", func(f map[string]string, _ *Host) { f["proc/sys/fs/inotify/max_user_instances"] = "128" }, "warning sysctl: fs.inotify.max_user_instances is 128"},
		{"neighbours", func(f map[string]string, _ *Host) { f["proc/sys/net/ipv6/neigh/default/gc_thresh3"] = "1000" }, "warning neighbours: the ipv6 neighbour table takes 1000"},
		{"conntrack full", func(f map[string]string, _ *Host) { f["proc/sys/net/netfilter/nf_conntrack_count"] = "250000" }, "error conntrack: 250000 of 262144"},
		{"conntrack small", func(f map[string]string, _ *Host) { f["proc/sys/net/netfilter/nf_conntrack_max"] = "4096" }, "warning conntrack: only 4096"},
		{"br_netfilter", func(f map[string]string, _ *Host) { f["proc/sys/net/bridge/bridge-nf-call-iptables"] = "1" }, "error bridge filter: net.bridge.bridge-nf-call-iptables is on"},
		{"no trunk", func(_ map[string]string, h *Host) { h.Blade.Trunk = "eno7" }, "error trunk: there is no NIC eno7"},
		{"MTU", func(f map[string]string, _ *Host) { f["sys/class/net/eno1/mtu"] = "1400" }, "error trunk: the MTU of eno1 is 1400"},
		{"carrier", func(f map[string]string, _ *Host) { f["sys/class/net/eno1/carrier"] = "0" }, "error trunk: eno1 has no carrier"},
		{"no management", func(_ map[string]string, h *Host) { h.Blade.Management = "eno7" }, "error management: there is no NIC eno7"},
		{"no hosts rules", func(_ map[string]string, h *Host) { h.Blade.Hosts = nil }, "warning management: no hosts rule"},
		{"a stranger's bridge", func(f map[string]string, _ *Host) { f["sys/class/net/br120/ifalias"] = "" }, "error names: there is a link br120"},
		{"nftables.service", func(f map[string]string, _ *Host) {
			f["etc/systemd/system/sysinit.target.wants/nftables.service"] = ""
		}, "warning other programs: nftables.service flushes"},
		{"NetworkManager", func(f map[string]string, _ *Host) { f["run/NetworkManager/conf"] = "" }, "warning other programs: NetworkManager runs"},
		{"firewalld", func(f map[string]string, _ *Host) { f["run/firewalld/x"] = "" }, "warning other programs: firewalld runs"},
		{"no KVM", func(f map[string]string, _ *Host) { delete(f, "dev/kvm") }, "error kvm: /dev/kvm cannot be opened"},
		{"no vsock", func(f map[string]string, _ *Host) { delete(f, "dev/vhost-vsock") }, "error kvm: /dev/vhost-vsock cannot be opened"},
		{"no libvirtd", func(f map[string]string, _ *Host) { delete(f, "run/libvirt/libvirt-sock") }, "error libvirt: libvirtd does not answer"},
		{"old control groups", func(f map[string]string, _ *Host) { delete(f, "sys/fs/cgroup/cgroup.controllers") }, "error cgroups: there is no unified"},
		{"no memory controller", func(f map[string]string, _ *Host) { f["sys/fs/cgroup/cgroup.controllers"] = "cpu pids" }, "error cgroups: control group controller memory"},
		{"no user namespaces", func(f map[string]string, _ *Host) { delete(f, "proc/sys/user/max_user_namespaces") }, "error user namespaces: the kernel has no"},
		{"user namespaces are off", func(f map[string]string, _ *Host) {
			f["proc/sys/user/max_user_namespaces"] = "0\n"
		}, "error user namespaces: user.max_user_namespaces is 0: containers need 2"},
		{"images of one owner", func(_ map[string]string, h *Host) {
			h.Images, h.Owners = "/var/lib/images", func(string) error { return errOneOwner }
		}, "error owners: the file system of /var/lib/images ("},
		{"images of one owner, no container", func(_ map[string]string, h *Host) {
			h.Images, h.Owners, h.Blade.Guests = "/var/lib/images", func(string) error { return errOneOwner }, nil
		}, "warning owners: the file system of /var/lib/images ("},
		{"weights and no scheduler", func(f map[string]string, h *Host) {
			f["sys/block/sda/queue/scheduler"] = "[mq-deadline] bfq none"
			h.Blade.Guests = []policy.Guest{{Name: "www-1", Driver: policy.DriverLXC, IOWeight: 300}}
		}, "warning shares of the disk: no disk of this blade follows weights"},
		{"bounds and no quotas", func(_ map[string]string, h *Host) {
			h.State, h.Quotas = "/nonexistent/state", func(string) error { return quota.ErrNone }
			h.Blade.Guests = []policy.Guest{{Name: "www-1", Driver: policy.DriverLXC, Disk: 1 << 30}}
		}, "error shares of the disk: containers with disk: in their entry are not made in / ("},
		{"the daemon waits", func(_ map[string]string, h *Host) {
			h.Waiting = []api.Waiting{{Step: plan.Step{Object: "domain d1", Reason: "no image"}}}
		}, "warning agent: domain d1: no image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := tree()
			c.change(files, &Host{})
			h := host(t, files)
			c.change(map[string]string{}, &h)
			if got := strings.Join(troubles(Run(t.Context(), h, false)), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

func TestSharesOfADiskThatKeepsThem(t *testing.T) {
	for _, follows := range []map[string]string{
		{"sys/block/sda/queue/scheduler": "mq-deadline [bfq] none"},
		{"sys/fs/cgroup/io.cost.qos": "8:0 enable=1 ctrl=auto"},
	} {
		files := tree()
		maps.Copy(files, follows)
		h := host(t, files)
		h.Quotas = func(string) error { return nil }
		h.Blade.Guests[1].IOWeight, h.Blade.Guests[1].Disk = 300, 1<<30
		if bad := troubles(Run(t.Context(), h, false)); len(bad) > 0 {
			t.Errorf("found with %v: %v", follows, bad)
		}
	}
}

func TestFixesHoldAndLeaveTheRest(t *testing.T) {
	files := tree()
	files["proc/sys/net/bridge/bridge-nf-call-iptables"] = "1"
	files["proc/sys/net/ipv4/neigh/default/gc_thresh3"] = "512"
	files["proc/sys/net/netfilter/nf_conntrack_max"] = "4096"
	files["proc/sys/fs/inotify/max_user_instances"] = "64"
	files["sys/class/net/eno1/mtu"] = "1400" // not for a program to change
	h := host(t, files)
	first := Run(t.Context(), h, true)
	fixed := 0
	for _, f := range first {
		if f.Fixed {
			fixed++
		}
	}
	if fixed != 4 {
		t.Errorf("%d were fixed, want 4: %v", fixed, troubles(first))
	}
	if left := troubles(Run(t.Context(), h, false)); len(left) != 1 || !strings.Contains(left[0], "MTU") {
		t.Errorf("left: %v, want the MTU", left)
	}
	for i, want := range []string{"256", "1024", "2048"} {
		if got := h.read("proc/sys/net/ipv4/neigh/default/gc_thresh" + string(rune('1'+i))); got != want {
			t.Errorf("gc_thresh%d is %s, want %s", i+1, got, want)
		}
	}
}

func TestDockersWishIsNotOverruled(t *testing.T) {
	files := tree()
	files["proc/sys/net/bridge/bridge-nf-call-iptables"] = "1"
	files["sys/class/net/docker0/mtu"] = "1500"
	h := host(t, files)
	Run(t.Context(), h, true)
	if h.read("proc/sys/net/bridge/bridge-nf-call-iptables") != "1" {
		t.Error("what Docker needs was switched off by itself")
	}
}

func TestTheHostItselfCanBeAsked(t *testing.T) {
	for _, f := range Run(t.Context(), Host{State: "/nonexistent/state"}, false) {
		if f.Level != api.Well && (f.Message == "" || f.Remedy == "") {
			t.Errorf("%+v has no message or no remedy", f)
		}
	}
}
