package traffic

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bridge is a bridge whose ports swallow what they are given. Each port is an ifb device: it has no other end, so that a packet's
// way ends there and its cost is the bridge's and the filter's alone.
type Bridge struct {
	ns    *Namespace
	ports map[string]int // index
}

// NewBridge makes a bridge, with ports by name and the address that is behind each. It learns, as the product's own
// bridges do.
func (n *Namespace) NewBridge(name string, ports map[string]net.HardwareAddr) (*Bridge, error) {
	b := &Bridge{ns: n, ports: map[string]int{}}
	err := n.Do(func() error {
		off := false
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &off}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			return err
		}
		for port, behind := range ports {
			index, err := addSink(port, bridge.Index, behind)
			if err != nil {
				return fmt.Errorf("add port %s: %w", port, err)
			}
			b.ports[port] = index
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", name, err)
	}
	return b, nil
}

func addSink(name string, bridge int, behind net.HardwareAddr) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Ifb{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		return 0, err
	}
	index := link.Index
	noqueue := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT}, QdiscType: "noqueue"}
	for _, err := range []error{
		netlink.QdiscReplace(noqueue),
		netlink.LinkSetMasterByIndex(link, bridge),
		netlink.LinkSetUp(link),
		netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: behind,
		}),
	} {
		if err != nil {
			return 0, err
		}
	}
	return index, nil
}

// swallowed is how many packets have left by a port.
func (b *Bridge) swallowed(port string) (uint64, error) {
	link, err := netlink.LinkByIndex(b.ports[port])
	if err != nil {
		return 0, fmt.Errorf("read counters of port %s: %w", port, err)
	}
	s := link.Attrs().Statistics
	return s.RxDropped + s.TxDropped, nil
}

// Passage is the way of packets over a bridge.
type Passage struct {
	Bridge   *Bridge
	From, To string
	Program  *Program
}

// Send sends packets and returns what one took in nanoseconds, by the kernel's clock, and how many arrived.
func (p Passage) Send(packets int) (ns float64, arrived int, err error) {
	err = p.Bridge.ns.Do(func() error {
		before, err := p.Bridge.swallowed(p.To)
		if err != nil {
			return err
		}
		if ns, err = p.Program.run(p.Bridge.ports[p.From], packets); err != nil {
			return err
		}
		after, err := p.Bridge.swallowed(p.To)
		arrived = int(after - before)
		return err
	})
	return ns, arrived, err
}

// Cost sends packets that must all arrive and returns what one took, in nanoseconds: a filter that drops would look fast.
func (p Passage) Cost(packets int) (float64, error) {
	ns, arrived, err := p.Send(packets)
	if err == nil && arrived != packets {
		err = fmt.Errorf("send %s to %s: %d of %d packets arrived", p.From, p.To, arrived, packets)
	}
	return ns, err
}
