package traffic

import (
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cable is a veth pair between a port of a bridge and an interface of another namespace.
type Cable struct {
	Bridge, Port string // in the namespace of the bridge, which is made if it is not there
	To           *Namespace
	Interface    string
	MAC          net.HardwareAddr
}

// Connect lays a cable.
func (n *Namespace) Connect(c Cable) error {
	err := n.Do(func() error {
		bridge, err := netlink.LinkByName(c.Bridge)
		if err != nil {
			off := false
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: c.Bridge}, MulticastSnooping: &off}); err != nil {
				return err
			}
			if bridge, err = netlink.LinkByName(c.Bridge); err != nil {
				return err
			}
			if err := netlink.LinkSetUp(bridge); err != nil {
				return err
			}
		}
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: c.Port, MasterIndex: bridge.Attrs().Index}, PeerName: c.Interface,
			PeerHardwareAddr: c.MAC, PeerNamespace: netlink.NsFd(c.To.fd),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	if err == nil {
		err = c.To.withLink(c.Interface, netlink.LinkSetUp)
	}
	if err != nil {
		return fmt.Errorf("connect %s: %w", c.Port, err)
	}
	return nil
}

func (n *Namespace) withLink(name string, do func(netlink.Link) error) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return do(link)
	})
}

// Own gives a link an address of its own, with no network behind it.
func (n *Namespace) Own(link string, a netip.Addr) error {
	return n.withLink(link, func(l netlink.Link) error {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: network(netip.PrefixFrom(a, a.BitLen()))})
	})
}

// Addressed sets a link of its thread's namespace up and gives it addresses, written with their prefixes. Nobody is asked first whether they are free.
func Addressed(link string, addresses ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrReplace(l, a); err != nil {
			return fmt.Errorf("%s on %s: %w", text, link, err)
		}
	}
	return nil
}

// Route sends what is for a network out of a link, to a neighbour whose MAC is known.
func (n *Namespace) Route(to netip.Prefix, link string, via netip.Addr, mac net.HardwareAddr) error {
	return n.withLink(link, func(l netlink.Link) error {
		index := l.Attrs().Index
		neighbour := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: via.AsSlice(), HardwareAddr: mac}
		if err := netlink.NeighSet(neighbour); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: index, Dst: network(to), Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
	})
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Offload switches segmentation and receive offloads of a link (linux/ethtool.h).
func (n *Namespace) Offload(link string, on bool) error {
	const setTSO, setGSO, setGRO = 0x1f, 0x24, 0x2c
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, command := range []uint32{setTSO, setGSO, setGRO} {
			value := [2]uint32{command}
			if on {
				value[1] = 1
			}
			var request struct {
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}
			copy(request.name[:], link)
			request.data = unsafe.Pointer(&value)
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
			if errno != 0 {
				return fmt.Errorf("switch offload %#x of %s: %w", command, link, errno)
			}
		}
		return nil
	})
}

// Delete deletes links one after the other.
func (n *Namespace) Delete(names ...string) error {
	return n.Do(func() error {
		for _, name := range names {
			if err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
				return fmt.Errorf("delete link %s: %w", name, err)
			}
		}
		return nil
	})
}
