//go:build kernel

package bridges

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestVLAN converges with VLAN links, repairs them, and goes back to nothing. It needs a kernel with 8021q.
func TestVLAN(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth", attribute32(unix.IFLA_MTU, 9000))
	want := vlanSpec()
	mustConverge(t, k, want)
	have := observe(t, k)
	l := have.Links["vlan120"]
	if l.Master != "br120" || l.Parent != "trunk0" || l.VLAN != (VLANState{ID: 120, Protocol: ethernet8021Q}) || l.MTU != 9000 || !l.Up || l.IPv6 {
		t.Errorf("vlan120 is %+v", l)
	}
	for _, c := range []struct {
		name  string
		spoil func(have State)
	}{
		{"deleted", func(have State) { raw(t, k, unix.RTM_DELLINK, 0, header(have.Links["vlan120"].Index)) }},
		{"trunk narrower", func(have State) {
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["trunk0"].Index), attribute32(unix.IFLA_MTU, 1500))
		}},
		{"trunk wider", func(have State) {
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["trunk0"].Index), attribute32(unix.IFLA_MTU, 9000))
		}},
		{"off its bridge", func(have State) {
			raw(t, k, unix.RTM_SETLINK, 0, header(have.Links["vlan130"].Index), attribute32(unix.IFLA_MASTER, 0))
		}},
		{"trunk down", func(have State) {
			msg := header(have.Links["trunk0"].Index)
			msg.Change = unix.IFF_UP
			raw(t, k, unix.RTM_NEWLINK, 0, msg)
		}},
	} {
		c.spoil(observe(t, k))
		if !planned(want, observe(t, k)) {
			t.Errorf("%s: not seen", c.name)
		}
		mustConverge(t, k, want)
	}
	mustConverge(t, k, Spec{Trunk: "trunk0"})
}

// TestVLANWrong demands that a VLAN link of ours that carries another VLAN, or another trunk's, is made anew.
func TestVLANWrong(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	addForeign(t, k, "trunk1", "veth")
	want := vlanSpec()
	mustConverge(t, k, want)
	want.Trunk = "trunk1"
	mustConverge(t, k, want)
	if l := observe(t, k).Links["vlan120"]; l.Parent != "trunk1" {
		t.Errorf("vlan120 is on %s", l.Parent)
	}
	want.VLANs[0].ID = 121
	mustConverge(t, k, want)
	if l := observe(t, k).Links["vlan120"]; l.VLAN.ID != 121 {
		t.Errorf("vlan120 carries %d", l.VLAN.ID)
	}
}

// TestVLANTaken demands that a VLAN that somebody else's link carries blocks ours, names that link, and stops nothing else; also when that
// link comes between plan and apply.
func TestVLANTaken(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth")
	steps := Plan(vlanSpec(), observe(t, k))
	h, err := openSocket(k.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Socket.Close()
	foreign := encodeVLAN(VLAN{Name: "old", ID: 120}, observe(t, k).Links["trunk0"].Index, 1500)
	foreign[2] = nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(0))
	if _, err := request(h, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, foreign...); err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(context.Background(), steps.Create); !errors.Is(err, unix.EEXIST) {
		t.Errorf("error is %v, want EEXIST", err)
	}
	steps = Plan(vlanSpec(), observe(t, k))
	if text := render(t, steps); !strings.Contains(text, "VLAN 120 on trunk0 is taken by link old") {
		t.Errorf("the plan does not name the link:\n%s", text)
	}
	mustConverge(t, k, vlanSpec())
	if l := observe(t, k).Links["vlan130"]; l.Master != "br130" {
		t.Errorf("vlan130 is %+v", l)
	}
}

// TestVLANFaults stops after each single change of the kernel, with a VLAN link, and demands that a retry converges.
func TestVLANFaults(t *testing.T) {
	want := vlanSpec()
	want.VLANs, want.Bridges, want.Ports, want.Namespaces = want.VLANs[:1], want.Bridges[:1], nil, nil
	faultAfterEachChange(t, Spec{Trunk: "trunk0"}, want)
}

// TestVLANCarriesFrames sends a frame into a tagged trunk and demands that it arrives, untagged, in the guest.
func TestVLANCarriesFrames(t *testing.T) {
	k := newKernel(t)
	addForeign(t, k, "trunk0", "veth") // its other end is veth0
	mustConverge(t, k, vlanSpec())
	raw(t, k, unix.RTM_NEWLINK, 0, &nlUp{name: "veth0"})
	raw(t, inGuest(k), unix.RTM_NEWLINK, 0, &nlUp{name: "eth1"})
	frame := append([]byte{2, 0, 0, 0, 0, 4, 2, 8, 8, 8, 8, 8, 0x81, 0, 0, 120, 0x88, 0xb5}, make([]byte, 46)...)
	received := make(chan error, 1)
	ready := make(chan error, 1)
	go func() { received <- inGuest(k).inThread(func() error { return receiveFrame("eth1", ready) }) }()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	if err := k.inThread(func() error { return sendFrame("veth0", frame) }); err != nil {
		t.Fatal(err)
	}
	if err := <-received; err != nil {
		t.Errorf("no frame in the guest: %v", err)
	}
}

func packetSocket(link string, protocol uint16) (fd int, address *unix.SockaddrLinklayer, err error) {
	h, err := openSocket("")
	if err != nil {
		return -1, nil, err
	}
	defer h.Socket.Close()
	l, err := (&session{handle: h}).lookup(link)
	if err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol>>8|protocol<<8))
	return fd, &unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: l.Index}, err
}

const experimental = 0x88b5 // EtherType for local experiments (IEEE 802)

func sendFrame(link string, frame []byte) error {
	fd, address, err := packetSocket(link, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, address)
}

func receiveFrame(link string, ready chan<- error) error {
	fd, address, err := packetSocket(link, experimental)
	if err == nil {
		err = errors.Join(unix.Bind(fd, address), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	}
	ready <- err
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _, err = unix.Recvfrom(fd, make([]byte, 2048), 0)
	return err
}
