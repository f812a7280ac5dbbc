package bridges

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// sticky keeps a forwarding entry at its port whoever sends with its address (NTF_STICKY of linux/neighbour.h). A static entry without
// it moves: the bridge learns from frames to 01:80:c2:00:00:0x as well, and those pass no hook of nftables.
const sticky = 0x40

// sizeofNeighbour is the length of struct ndmsg of linux/neighbour.h.
const sizeofNeighbour = 12

// pin is one sticky entry of a bridge's forwarding table: frames to the address go to the port.
type pin struct {
	index int // of the port
	mac   policy.MAC
}

// encodePortSettings makes a port of a bridge one that learns nothing and gets no frames to addresses that nobody has.
func encodePortSettings() *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated(string(KindBridge)))
	data := info.AddRtAttr(unix.IFLA_INFO_SLAVE_DATA, nil)
	data.AddRtAttr(nl.IFLA_BRPORT_LEARNING, nl.Uint8Attr(0))
	data.AddRtAttr(nl.IFLA_BRPORT_UNICAST_FLOOD, nl.Uint8Attr(0))
	return info
}

func decodePort(b []byte) PortState {
	var s PortState
	for kind, v := range attributes(b) {
		switch kind {
		case nl.IFLA_BRPORT_LEARNING:
			s.Learning = number(v) != 0
		case nl.IFLA_BRPORT_UNICAST_FLOOD:
			s.Flood = number(v) != 0
		}
	}
	return s
}

// neighbour is struct ndmsg of a forwarding entry.
type neighbour struct{ pin }

func (neighbour) Len() int { return sizeofNeighbour }

func (n neighbour) Serialize() []byte {
	b := make([]byte, sizeofNeighbour)
	b[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(b[4:], uint32(n.index))
	binary.NativeEndian.PutUint16(b[8:], unix.NUD_NOARP)
	b[10] = unix.NTF_MASTER | sticky
	return b
}

func encodePin(p pin) []nl.NetlinkRequestData {
	return []nl.NetlinkRequestData{neighbour{p}, nl.NewRtAttr(unix.NDA_LLADDR, p.mac[:])}
}

// decodePin reads one RTM_NEWNEIGH message without its netlink header; false means that it is not a sticky entry of a bridge.
func decodePin(m []byte) (pin, bool) {
	if len(m) < sizeofNeighbour || m[0] != unix.AF_BRIDGE || m[10]&sticky == 0 {
		return pin{}, false
	}
	p := pin{index: int(int32(binary.NativeEndian.Uint32(m[4:])))}
	for kind, v := range attributes(m[sizeofNeighbour:]) {
		if kind == unix.NDA_LLADDR {
			p.mac = mac(v)
		}
	}
	return p, p.mac != policy.MAC{}
}

// pins lists the sticky entries of every bridge, by the index of their port, sorted.
func (s *session) pins(ctx context.Context) (map[int][]policy.MAC, error) {
	for attempt := 1; ; attempt++ {
		messages, err := request(s.handle, unix.RTM_GETNEIGH, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_BRIDGE))
		if err == nil {
			return decodePins(messages), nil
		}
		interrupted := errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR)
		if !interrupted || attempt == dumpAttempts || ctx.Err() != nil {
			return nil, fmt.Errorf("list forwarding entries: %w", errors.Join(err, ctx.Err()))
		}
	}
}

func decodePins(messages [][]byte) map[int][]policy.MAC {
	out := map[int][]policy.MAC{}
	for _, m := range messages {
		if p, ok := decodePin(m); ok {
			out[p.index] = append(out[p.index], p.mac)
		}
	}
	for index, macs := range out {
		slices.SortFunc(macs, func(a, b policy.MAC) int { return bytes.Compare(a[:], b[:]) })
		out[index] = slices.Compact(macs) // a kernel with VLAN filtering has an entry for the bridge's default VLAN too
	}
	return out
}

// setForwarding is what a bridge knows of a port and does with it.
type setForwarding struct {
	closed bool       // the port learns nothing and gets nothing that is not for it
	pin    policy.MAC // goes to the port from now on
	unpin  []policy.MAC
}

func (s *session) setForwarding(ctx context.Context, index int, f setForwarding) error {
	if f.closed {
		if err := s.send(ctx, "set bridge port", unix.RTM_NEWLINK, 0, header(index), encodePortSettings()); err != nil {
			return err
		}
	}
	for _, mac := range f.unpin {
		err := s.send(ctx, "unpin "+mac.String(), unix.RTM_DELNEIGH, 0, encodePin(pin{index, mac})...)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if f.pin == (policy.MAC{}) {
		return nil
	}
	return s.send(ctx, "pin "+f.pin.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, encodePin(pin{index, f.pin})...)
}

// compare says how what the bridge knows of a port differs from what it must, and notes the change.
func (f *setForwarding) compare(port Port, have PortState) []string {
	var detail []string
	if have.Learning {
		detail = append(detail, "learning off")
	}
	if have.Flood {
		detail = append(detail, "unknown unicast off")
	}
	f.closed = have.Learning || have.Flood
	for _, mac := range have.Pinned {
		if mac != port.GuestMAC {
			f.unpin = append(f.unpin, mac)
			detail = append(detail, "no frames to "+mac.String())
		}
	}
	if !slices.Contains(have.Pinned, port.GuestMAC) {
		f.pin = port.GuestMAC
		detail = append(detail, "frames to "+port.GuestMAC.String())
	}
	return detail
}
