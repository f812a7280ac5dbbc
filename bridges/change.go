package bridges

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// createBridge makes a bridge, up.
type createBridge struct {
	Bridge
	mtu int
}

func (c createBridge) apply(ctx context.Context, s *session) error {
	if err := s.create(ctx, encodeBridge(c.Bridge, c.mtu), KindBridge); err != nil {
		return err
	}
	return setLink{name: c.Name, alias: c.alias(), mark: true, quiet: true, state: stateUp}.apply(ctx, s)
}

// createVLAN makes a VLAN link on the trunk, joins it to its bridge and sets it up.
type createVLAN struct {
	VLAN
	trunk string
	mtu   int
}

func (c createVLAN) apply(ctx context.Context, s *session) error {
	trunk, err := s.lookup(c.trunk)
	if err != nil {
		return err
	}
	if err := s.create(ctx, encodeVLAN(c.VLAN, trunk.Index, c.mtu), KindVLAN); err != nil {
		return err
	}
	return setLink{name: c.Name, alias: c.alias(), mark: true, quiet: true, master: c.Bridge, state: stateUp}.apply(ctx, s)
}

// createTap makes a persistent tap, down and on no bridge.
type createTap struct {
	Port
	mtu int
}

func (c createTap) apply(ctx context.Context, s *session) error {
	if err := s.change(ctx, "create tap"); err != nil {
		return err
	}
	var fd int
	err := s.k.inThread(func() (err error) {
		fd, err = openTap(c.Name)
		return err
	})
	if err != nil {
		return err
	}
	// Until it is made persistent the tap goes with this descriptor, so a tap without its alias is never left behind.
	defer unix.Close(fd)
	if err := (setLink{name: c.Name, alias: c.alias(), mark: true, mtu: c.mtu, mac: c.MAC, quiet: true, fresh: true}).apply(ctx, s); err != nil {
		return err
	}
	if err := s.change(ctx, "make tap persistent"); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make tap persistent: %w", err)
	}
	return nil
}

// tunExclusive makes TUNSETIFF refuse a name that exists (IFF_TUN_EXCL of linux/if_tun.h): it would take over a persistent tap otherwise.
const tunExclusive = 0x8000

func openTap(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, explain(KindTap, fmt.Errorf("open /dev/net/tun: %w", err))
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | tunExclusive)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd)
		return -1, explain(KindTap, fmt.Errorf("create tap: %w", err))
	}
	return fd, nil
}

// createVeth makes a veth pair: the host end down and on no bridge, the other end in the guest's namespace.
type createVeth struct {
	Port
	mtu int
}

func (c createVeth) apply(ctx context.Context, s *session) error {
	ns, closeNS, err := openNamespace(s.k.path(string(c.Guest)))
	if err != nil {
		return err
	}
	defer closeNS()
	if err := s.create(ctx, encodeVeth(c.Port, c.mtu, int(ns)), KindVeth); err != nil {
		return err
	}
	return setLink{name: c.Name, alias: c.alias(), mark: true, quiet: true}.apply(ctx, s)
}

func (s *session) create(ctx context.Context, data []nl.NetlinkRequestData, kind Kind) error {
	err := s.send(ctx, "create link", unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
	return explain(kind, err)
}

// unknownKind is what the kernel says of a kind of link that neither it nor a module that it could load knows (net/core/rtnetlink.c).
const unknownKind = "Unknown device type"

// explain adds what an operator can do to an answer of the kernel that says too little.
func explain(kind Kind, err error) error {
	module := map[Kind]string{KindVLAN: "8021q", KindBridge: "bridge", KindTap: "tun", KindVeth: "veth"}[kind]
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), unknownKind), kind == KindTap && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)):
		return fmt.Errorf("%w: this kernel makes no links of kind %s: load its module (modprobe %s)", err, kind, module)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: changing links needs root or CAP_NET_ADMIN", err)
	}
	return err
}

// The states that setLink can give a link.
const (
	stateLeft = iota
	stateUp
	stateDown
)

// setLink changes an existing link. Zero fields are left as they are.
type setLink struct {
	name  string
	index int    // 0: the link of this name, if its alias says that it is ours
	alias string // the alias that the link has, or gets if mark is set
	mark  bool
	fresh bool // made a moment ago by us, nobody else: it has neither alias nor group yet

	mtu    int
	mac    policy.MAC
	quiet  bool        // no IPv6
	bridge BridgeState // what is wrong with a bridge's settings
	master string
	detach bool
	state  int
	end    setEnd

	forwarding setForwarding // after it has joined its bridge
}

// setEnd changes the end of a veth in a guest's namespace.
type setEnd struct {
	guest policy.GuestName
	index int
	mac   policy.MAC
	mtu   int
}

func (c setLink) apply(ctx context.Context, s *session) error {
	if err := c.resolve(s); err != nil {
		return err
	}
	if err := c.applyState(ctx, s, stateDown, c.index); err != nil {
		return err
	}
	if c.detach {
		if err := s.set(ctx, "leave bridge", c.index, attribute32(unix.IFLA_MASTER, 0)); err != nil {
			return err
		}
	}
	if c.quiet {
		if err := s.silenceIPv6(ctx, c.name); err != nil {
			return err
		}
	}
	if attrs := c.attributes(); len(attrs) > 0 {
		if err := s.set(ctx, "set link", c.index, attrs...); err != nil {
			return err
		}
	}
	if c.bridge != (BridgeState{}) {
		if err := s.setBridge(ctx, c.index, c.bridge); err != nil {
			return err
		}
	}
	if c.master != "" {
		if err := s.join(ctx, c.index, c.master); err != nil {
			return err
		}
	}
	if err := s.setForwarding(ctx, c.index, c.forwarding); err != nil {
		return err
	}
	if err := s.setEnd(ctx, c.end); err != nil {
		return err
	}
	return c.applyState(ctx, s, stateUp, c.index)
}

func (c *setLink) resolve(s *session) error {
	if c.index != 0 {
		return nil
	}
	l, err := s.lookup(c.name)
	if err != nil {
		return err
	}
	if !c.fresh && !l.ours() {
		return fmt.Errorf("link %s is no longer the one that bladenet made", c.name)
	}
	c.index = l.Index
	return nil
}

func (c setLink) attributes() []nl.NetlinkRequestData {
	var attrs []nl.NetlinkRequestData
	if c.mark {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(c.alias)))
	}
	if c.mtu != 0 {
		attrs = append(attrs, attribute32(unix.IFLA_MTU, uint32(c.mtu)))
	}
	if c.mac != (policy.MAC{}) {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_ADDRESS, c.mac[:]))
	}
	return attrs
}

func (c setLink) applyState(ctx context.Context, s *session, state, index int) error {
	if c.state != state {
		return nil
	}
	msg, operation := header(index), "set link down"
	msg.Change = unix.IFF_UP
	if state == stateUp {
		msg.Flags, operation = unix.IFF_UP, "set link up"
	}
	return s.send(ctx, operation, unix.RTM_NEWLINK, 0, msg)
}

func (s *session) set(ctx context.Context, operation string, index int, attrs ...nl.NetlinkRequestData) error {
	return s.send(ctx, operation, unix.RTM_SETLINK, 0, append([]nl.NetlinkRequestData{header(index)}, attrs...)...)
}

// setBridge switches the spanning tree off before the rest: while it is on the kernel refuses a forward delay of 0.
func (s *session) setBridge(ctx context.Context, index int, have BridgeState) error {
	var messages []*nl.RtAttr
	if have.STP {
		messages = append(messages, encodeBridgeOff(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0)))
	}
	if have.VLANFiltering {
		messages = append(messages, encodeBridgeOff(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(0)))
	}
	for _, info := range append(messages, encodeBridgeSettings()) {
		if err := s.send(ctx, "set bridge", unix.RTM_NEWLINK, 0, header(index), info); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) join(ctx context.Context, index int, bridge string) error {
	master, err := s.lookup(bridge)
	if err != nil {
		return err
	}
	if !master.ours() || master.Kind != KindBridge {
		return fmt.Errorf("join bridge %s: bladenet did not make it", bridge)
	}
	return s.set(ctx, "join bridge "+bridge, index, attribute32(unix.IFLA_MASTER, uint32(master.Index)))
}

func (s *session) setEnd(ctx context.Context, e setEnd) error {
	attrs := setLink{mac: e.mac, mtu: e.mtu}.attributes()
	if len(attrs) == 0 {
		return nil
	}
	h, err := openSocket(s.k.path(string(e.guest)))
	if err != nil {
		return err
	}
	defer h.Socket.Close()
	inside := &session{k: s.k, handle: h}
	return inside.set(ctx, "set link in the namespace", e.index, attrs...)
}

// silenceIPv6 takes IPv6 off a link: the blade must not be reachable from a guest's network, not even by a link-local address.
func (s *session) silenceIPv6(ctx context.Context, link string) error {
	if err := s.change(ctx, "switch IPv6 off"); err != nil {
		return err
	}
	folder := filepath.Join("/proc/sys/net/ipv6/conf", link)
	return s.k.inThread(func() error {
		for _, f := range []struct{ name, value string }{{"disable_ipv6", "1"}, {"addr_gen_mode", "1"}} {
			err := os.WriteFile(filepath.Join(folder, f.name), []byte(f.value), 0o644)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a kernel without IPv6, or a link too narrow for it
			}
			if err != nil {
				return fmt.Errorf("switch IPv6 off: %w", err)
			}
		}
		return nil
	})
}

// lookup returns the link of a name.
func (s *session) lookup(name string) (Link, error) {
	messages, err := request(s.handle, unix.RTM_GETLINK, 0, header(0), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return Link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	links, err := decodeLinks(messages)
	if err != nil {
		return Link{}, err
	}
	if len(links) != 1 {
		return Link{}, fmt.Errorf("find link %s: %d answers", name, len(links))
	}
	return links[0], nil
}

// deleteLink deletes a link by its index: another link may have its name by now.
type deleteLink struct {
	name  string
	index int
	kind  Kind
}

func (c deleteLink) apply(ctx context.Context, s *session) error {
	err := s.send(ctx, "delete link", unix.RTM_DELLINK, 0, header(c.index))
	if errors.Is(err, unix.ENODEV) {
		return nil // a veth goes with its other end, a VLAN link with its trunk
	}
	return err
}
