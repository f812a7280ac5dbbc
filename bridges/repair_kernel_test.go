//go:build kernel

package bridges

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// nlUp is the header of a request that sets a link up by its name.
type nlUp struct{ name string }

func (n *nlUp) Len() int { return len(n.Serialize()) }

func (n *nlUp) Serialize() []byte {
	msg := header(0)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	return append(msg.Serialize(), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(n.name)).Serialize()...)
}

// settledKernel returns a Kernel that has converged to portSpec.
func settledKernel(t *testing.T) *Kernel {
	t.Helper()
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	mustConverge(t, k, portSpec())
	return k
}

// TestRepair spoils one thing at a time, as a stranger on the host or root in a guest would, and demands that it is seen and repaired.
func TestRepair(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, k *Kernel, have State)
	}{
		{"bridge deleted", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_DELLINK, 0, header(have.Links["br120"].Index))
		}},
		{"tap deleted", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_DELLINK, 0, header(have.Links["dir-1.0"].Index))
		}},
		{"alias removed", func(t *testing.T, k *Kernel, have State) {
			// The group still says whose it is.
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["br120"].Index), nl.NewRtAttr(unix.IFLA_IFALIAS, nil))
		}},
		{"spanning tree", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_NEWLINK, 0, header(have.Links["br120"].Index), encodeBridgeOff(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(1)))
			raw(t, k, unix.RTM_NEWLINK, 0, header(have.Links["br120"].Index), encodeBridgeOff(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(1500)))
			raw(t, k, unix.RTM_NEWLINK, 0, header(have.Links["br130"].Index), encodeBridgeOff(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(1)))
		}},
		{"port down", func(t *testing.T, k *Kernel, have State) {
			msg := header(have.Links["www-1.0"].Index)
			msg.Change = unix.IFF_UP
			raw(t, k, unix.RTM_NEWLINK, 0, msg)
		}},
		{"port on another bridge", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["dir-1.1"].Index), attribute32(unix.IFLA_MASTER, uint32(have.Links["br130"].Index)))
		}},
		{"port off its bridge", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["www-1.1"].Index), attribute32(unix.IFLA_MASTER, 0))
		}},
		{"port learns and floods", func(t *testing.T, k *Kernel, have State) {
			info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
			info.AddRtAttr(unix.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
			data := info.AddRtAttr(unix.IFLA_INFO_SLAVE_DATA, nil)
			data.AddRtAttr(nl.IFLA_BRPORT_LEARNING, nl.Uint8Attr(1))
			data.AddRtAttr(nl.IFLA_BRPORT_UNICAST_FLOOD, nl.Uint8Attr(1))
			raw(t, k, unix.RTM_NEWLINK, 0, header(have.Links["www-1.1"].Index), info)
		}},
		{"forwarding entry deleted", func(t *testing.T, k *Kernel, have State) {
			l := have.Links["www-1.1"]
			raw(t, k, unix.RTM_DELNEIGH, 0, encodePin(pin{l.Index, l.Port.Pinned[0]})...)
		}},
		{"forwarding entry elsewhere", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, encodePin(pin{have.Links["dir-1.1"].Index, have.Links["www-1.1"].Port.Pinned[0]})...)
		}},
		{"trunk wider", func(t *testing.T, k *Kernel, have State) {
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["trunk0"].Index), attribute32(unix.IFLA_MTU, 9000))
		}},
		{"ipv6 on", func(t *testing.T, k *Kernel, _ State) {
			if err := k.inThread(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/br120/disable_ipv6", []byte("0"), 0o644) }); err != nil {
				t.Fatal(err)
			}
		}},
		{"guest deletes eth0", func(t *testing.T, k *Kernel, have State) {
			raw(t, inGuest(k), unix.RTM_DELLINK, 0, header(have.Links["www-1.0"].Inside.Index))
		}},
		{"guest changes eth0", func(t *testing.T, k *Kernel, have State) {
			raw(t, inGuest(k), unix.RTM_SETLINK, 0, header(have.Links["www-1.0"].Inside.Index), attribute32(unix.IFLA_MTU, 700), nl.NewRtAttr(unix.IFLA_ADDRESS, []byte{2, 6, 6, 6, 6, 6}))
		}},
		{"namespace unmounted", func(t *testing.T, k *Kernel, _ State) {
			if err := unix.Unmount(k.path("www-1"), unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}},
		{"namespace removed", func(t *testing.T, k *Kernel, _ State) {
			if err := errors.Join(unix.Unmount(k.path("www-1"), unix.MNT_DETACH), os.Remove(k.path("www-1"))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := settledKernel(t)
			c.spoil(t, k, observe(t, k))
			if !planned(portSpec(), observe(t, k)) {
				t.Fatal("the damage is not seen")
			}
			mustConverge(t, k, portSpec())
			checkSettled(t, portSpec(), observe(t, k))
		})
	}
}

// planned says whether anything is to be done.
func planned(want Spec, have State) bool {
	return slices.ContainsFunc(Plan(want, have).All(), func(s Step) bool { return s.Verb != plan.Blocked })
}

// TestNetfilter demands that br_netfilter is told of while it is on, and no longer when it is off. Kernels without it have nothing to tell.
func TestNetfilter(t *testing.T) {
	k := settledKernel(t)
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	for _, value := range []string{"1", "0"} {
		err := k.inThread(func() error { return os.WriteFile(file, []byte(value), 0o644) })
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		want := err == nil && value == "1"
		if got := slices.Contains(observe(t, k).Netfilter, "net.bridge.bridge-nf-call-iptables"); got != want {
			t.Errorf("set to %s (%v): told of is %v", value, err, got)
		}
	}
}

// inGuest is a Kernel whose own namespace is that of the guest www-1.
func inGuest(k *Kernel) *Kernel { return NewKernel(Options{Namespace: k.path("www-1")}) }

// TestForeignNames demands that links of somebody else keep a name that is wanted, that what needs them is blocked and the rest converges.
func TestForeignNames(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	addForeign(t, k, "br120", "bridge", nl.NewRtAttr(unix.IFLA_ADDRESS, []byte{2, 7, 7, 7, 7, 7}))
	addForeign(t, k, "dir-1.0", "ifb")
	before := observe(t, k)
	mustConverge(t, k, portSpec())
	after := observe(t, k)
	for _, name := range []string{"br120", "dir-1.0"} {
		if before.Links[name].Index != after.Links[name].Index || before.Links[name].MAC != after.Links[name].MAC || after.Links[name].Alias != "" {
			t.Errorf("foreign link %s was touched: %+v", name, after.Links[name])
		}
	}
	if l := after.Links["www-1.0"]; l.Master != "br130" || !l.Up {
		t.Errorf("a port that could be had is %+v", l)
	}
	if _, ok := after.Links["www-1.1"]; ok {
		t.Error("a port of a blocked bridge was made")
	}
}

// TestNameTakenInBetween makes a foreign link between plan and apply: a bridge, and a tap, which TUNSETIFF would take over without a word.
func TestNameTakenInBetween(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	steps := Plan(portSpec(), observe(t, k))
	addForeign(t, k, "br120", "bridge")
	if err := k.inThread(func() error { return foreignTap("dir-1.0") }); err != nil {
		t.Fatal(err)
	}
	err := k.Apply(context.Background(), steps.Create)
	if !errors.Is(err, unix.EEXIST) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("error is %v, want EEXIST of the bridge and EBUSY of the tap", err)
	}
	if err := k.Apply(context.Background(), steps.Attach); err == nil {
		t.Error("ports were joined to a foreign bridge")
	}
	have := observe(t, k)
	if l := have.Links["dir-1.0"]; l.Alias != "" || l.Master != "" || l.Up {
		t.Errorf("the foreign tap was touched: %+v", l)
	}
	if l := have.Links["www-1.0"]; l.Master != "br130" {
		t.Errorf("a port whose bridge was made is %+v", l)
	}
	mustConverge(t, k, portSpec())
}

// foreignTap makes a persistent tap as somebody else would.
func foreignTap(name string) error {
	fd, err := openTap(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}

// TestTapOpens opens a tap as libvirt does, with one queue and vnet headers, and demands that it is there again when the guest is gone.
func TestTapOpens(t *testing.T) {
	k := settledKernel(t)
	err := k.inThread(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq("dir-1.0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		t.Fatalf("open the tap: %v", err)
	}
	wantNothing(t, Plan(portSpec(), observe(t, k)))
}

// TestNoAddresses demands that no link on the host has any IP address, also not one that it gave itself when it came up.
func TestNoAddresses(t *testing.T) {
	k := settledKernel(t)
	time.Sleep(100 * time.Millisecond)
	h, err := openSocket(k.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Socket.Close()
	messages, err := request(h, unix.RTM_GETADDR, unix.NLM_F_DUMP, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		t.Fatal(err)
	}
	have := observe(t, k)
	for _, m := range messages {
		index := int(nl.DeserializeIfAddrmsg(m).Index)
		for _, l := range have.Links {
			if l.Index == index && l.ours() {
				t.Errorf("link %s has an address", l.Name)
			}
		}
	}
}

// TestManyPorts removes many ports at once, by their group, and leaves a stranger alone that is in the group next to it.
func TestManyPorts(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	addForeign(t, k, "stranger", "ifb", attribute32(unix.IFLA_GROUP, newborn+1))
	want := Spec{Trunk: "trunk0", Bridges: portSpec().Bridges, Namespaces: []policy.GuestName{"g"}}
	for i := range 128 {
		p := testPort(fmt.Sprintf("g.%03d", i), KindVeth, "g", fmt.Sprintf("eth%d", i), "br120", byte(i))
		want.Ports = append(want.Ports, p)
	}
	start := time.Now()
	mustConverge(t, k, want)
	created := time.Since(start)
	want.Ports = want.Ports[:1]
	deletions := 0
	k.hook = func(operation string) error {
		if strings.HasPrefix(operation, "delete") {
			deletions++
		}
		return nil
	}
	start = time.Now()
	mustConverge(t, k, want)
	t.Logf("128 ports made in %v, 127 removed in %v", created, time.Since(start))
	if deletions != 1 {
		t.Errorf("%d requests to delete, want 1", deletions)
	}
	if _, ok := observe(t, k).Links["stranger"]; !ok {
		t.Error("a foreign link was deleted with the group")
	}
}

// TestNamespaceElsewhere demands that a deleted guest's namespace is kept by no mount namespace that was copied meanwhile.
func TestNamespaceElsewhere(t *testing.T) {
	k := settledKernel(t)
	path := k.path("www-1")
	ready, done := make(chan error), make(chan struct{})
	mounted := make(chan bool)
	go func() {
		_ = onLostThread(func() error {
			err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
			ready <- err
			<-done
			var st unix.Statfs_t
			err = unix.Statfs(path, &st)
			mounted <- err == nil && st.Type == nsfsMagic
			return nil
		})
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	mustConverge(t, k, Spec{Trunk: "trunk0"})
	close(done)
	if <-mounted {
		t.Error("the namespace is still mounted in another mount namespace")
	}
}

// TestWatch demands a wake at the start and after a change, and none after the end.
func TestWatch(t *testing.T) {
	k := newKernel(t)
	ctx, cancel := context.WithCancel(context.Background())
	wakes := make(chan struct{}, 1000)
	ended := make(chan error, 1)
	go func() { ended <- k.Watch(ctx, func() { wakes <- struct{}{} }) }()
	waitFor(t, wakes)
	addForeign(t, k, "br7", "bridge")
	waitFor(t, wakes)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
}

func waitFor(t *testing.T, wakes chan struct{}) {
	t.Helper()
	select {
	case <-wakes:
	case <-time.After(10 * time.Second):
		t.Fatal("no wake")
	}
}

// TestWatchOverrun blocks the watcher until the kernel has thrown events away, and demands that it subscribes again and wakes.
func TestWatchOverrun(t *testing.T) {
	k := newKernel(t)
	log := &lines{}
	k.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	addForeign(t, k, "br7", "bridge")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	release, first := make(chan struct{}), make(chan struct{})
	wakes := make(chan struct{}, 100000)
	var once sync.Once
	go func() {
		_ = k.Watch(ctx, func() {
			once.Do(func() {
				close(first)
				<-release
			})
			wakes <- struct{}{}
		})
	}()
	<-first
	raw(t, k, unix.RTM_NEWLINK, 0, &nlUp{name: "br7"}) // a link that is down changes its alias in silence
	flood(t, k, "br7", 8000)
	close(release)
	deadline := time.Now().Add(10 * time.Second)
	for !log.has("events were lost") && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if !log.has("events were lost") {
		t.Fatal("the kernel lost no event: the test proves nothing")
	}
	for len(wakes) > 0 {
		<-wakes
	}
	addForeign(t, k, "br8", "bridge")
	waitFor(t, wakes)
}

// flood changes a link's alias many times.
func flood(t *testing.T, k *Kernel, name string, times int) {
	t.Helper()
	h, err := openSocket(k.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Socket.Close()
	index := observe(t, k).Links[name].Index
	for i := range times {
		alias := nl.NewRtAttr(unix.IFLA_IFALIAS, fmt.Appendf(nil, "alias %d", i))
		if _, err := request(h, unix.RTM_SETLINK, unix.NLM_F_ACK, header(index), alias); err != nil {
			t.Fatal(err)
		}
	}
}

// lines collects a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// TestFolderIsAMountPoint demands what makes the namespaces independent of other mount namespaces.
func TestFolderIsAMountPoint(t *testing.T) {
	k := settledKernel(t)
	if mounted, err := isMountPoint(k.folder); err != nil || !mounted {
		t.Errorf("folder is a mount point: %v, %v", mounted, err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.EvalSymlinks(k.folder)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 6 && f[4] == folder && f[6] != "-" {
			t.Errorf("mount %s is not private: %s", folder, f[6])
		}
	}
}
