package nft

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// traceMessage writes a trace event as the kernel does and returns it as eachMessage would.
func traceMessage(write func(*batch)) message {
	b := newBatch()
	at := b.message(unix.NFT_MSG_TRACE, 0, unix.NFPROTO_BRIDGE, "trace")
	write(b)
	b.close(at)
	var out message
	eachMessage(b.buf[at:], func(m message) { out = m })
	return out
}

func TestDecodeTrace(t *testing.T) {
	frame := requestPacket().Frame(0)
	m := traceMessage(func(b *batch) {
		b.text(unix.NFTA_TRACE_TABLE, "bladenet")
		b.text(unix.NFTA_TRACE_CHAIN, "vip-in")
		b.long(unix.NFTA_TRACE_RULE_HANDLE, 77)
		b.number(unix.NFTA_TRACE_TYPE, unix.NFT_TRACETYPE_RULE)
		verdict := b.nest(unix.NFTA_TRACE_VERDICT)
		b.number(unix.NFTA_VERDICT_CODE, verdictCode(filter.Goto))
		b.text(unix.NFTA_VERDICT_CHAIN, "deny-vip-port")
		b.shut(verdict)
		b.number(unix.NFTA_TRACE_ID, 0xdeadbeef)
		b.bytes(unix.NFTA_TRACE_LL_HEADER, frame[:14])
		b.bytes(unix.NFTA_TRACE_NETWORK_HEADER, frame[14:54])
		b.bytes(unix.NFTA_TRACE_TRANSPORT_HEADER, frame[34:54])
		b.number(unix.NFTA_TRACE_IIF, 5)
		b.number(99, 1) // one that a later kernel may have
	})
	got, err := decodeTrace(m)
	if err != nil {
		t.Fatal(err)
	}
	want := traceEvent{
		id: 0xdeadbeef, family: unix.NFPROTO_BRIDGE, table: "bladenet", chain: "vip-in", rule: 77, kind: unix.NFT_TRACETYPE_RULE,
		verdict: unix.NFT_GOTO, target: "deny-vip-port", in: 5, link: frame[:14], network: frame[14:54], transport: frame[34:54],
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(traceEvent{})); diff != "" {
		t.Errorf("event (-want +got)\n%s", diff)
	}
	if text := got.verdictText(); text != "goto deny-vip-port" {
		t.Errorf("verdict is %q", text)
	}
	if diff := cmp.Diff(requestPacket(), got.packet(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("packet (-want +got)\n%s", diff)
	}
}

func requestPacket() filter.Packet {
	return filter.Packet{
		Source: policy.MAC{2, 0, 0, 0, 0, 1}, Destination: policy.MAC{2, 0, 0, 0, 0, 2}, EtherType: etherIPv4,
		IP: &filter.IP{
			Source: netip.MustParseAddr("198.18.0.7"), Destination: netip.MustParseAddr("203.0.113.10"), HopLimit: 64, Protocol: protocolTCP,
			SourcePort: 40000, DestinationPort: 80, Flags: policy.FlagSYN,
		},
	}
}

// TestHeadersAsThePacketHasThem reads back what Frame writes, for each kind of packet, from as much as the kernel shows.
func TestHeadersAsThePacketHasThem(t *testing.T) {
	six := func(protocol uint8) *filter.IP {
		return &filter.IP{Source: netip.MustParseAddr("2001:db8:c0::7"), Destination: netip.MustParseAddr("2001:db8:5::10"), HopLimit: 64, Protocol: protocol}
	}
	ports := func(ip *filter.IP, flags policy.TCPFlags) *filter.IP {
		ip.SourcePort, ip.DestinationPort, ip.Flags = 40000, 53, flags
		return ip
	}
	for name, c := range map[string]struct {
		packet    filter.Packet
		transport int // offset in the frame
	}{
		"arp": {filter.Packet{EtherType: etherARP, ARP: &filter.ARP{
			Operation: 2, SenderMAC: policy.MAC{1, 2, 3, 4, 5, 6}, Sender: netip.MustParseAddr("192.0.2.1"), Target: netip.MustParseAddr("192.0.2.2"),
		}}, 0},
		"udp over ipv6": {filter.Packet{EtherType: etherIPv6, IP: ports(six(protocolUDP), 0)}, 54},
		"tcp over ipv6": {filter.Packet{EtherType: etherIPv6, IP: ports(six(protocolTCP), policy.FlagSYN|policy.FlagACK)}, 54},
	} {
		frame := c.packet.Frame(0)
		e := traceEvent{link: frame[:14], network: frame[14:min(54, len(frame))]}
		if c.transport > 0 {
			e.transport = frame[c.transport:min(c.transport+20, len(frame))]
		}
		if diff := cmp.Diff(c.packet, e.packet(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

func TestDecodeTraceRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		message message
		want    string
	}{
		"another message": {message{kind: netlinkNFT | unix.NFT_MSG_NEWRULE, body: make([]byte, 8)}, "no trace event"},
		"no header":       {message{kind: netlinkNFT | unix.NFT_MSG_TRACE, body: []byte{7}}, "1 bytes"},
		"empty":           {traceMessage(func(*batch) {}), "no table"},
		"short number":    {traceMessage(func(b *batch) { b.bytes(unix.NFTA_TRACE_ID, []byte{1, 2}) }), "number of 2 bytes"},
		"short handle":    {traceMessage(func(b *batch) { b.bytes(unix.NFTA_TRACE_RULE_HANDLE, []byte{1, 2}) }), "rule handle of 2 bytes"},
		"cut off":         {message{kind: netlinkNFT | unix.NFT_MSG_TRACE, body: []byte{7, 0, 0, 0, 99, 0, 1, 0, 0}}, "attribute of 99 bytes"},
	} {
		if _, err := decodeTrace(c.message); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzDecodeTrace wants no panic, and nothing read that is not in the message.
func FuzzDecodeTrace(f *testing.F) {
	frame := requestPacket().Frame(0)
	f.Add(traceMessage(func(b *batch) {
		b.text(unix.NFTA_TRACE_TABLE, "bladenet")
		b.text(unix.NFTA_TRACE_CHAIN, "forward")
		b.number(unix.NFTA_TRACE_TYPE, unix.NFT_TRACETYPE_POLICY)
		b.number(unix.NFTA_TRACE_POLICY, netfilterAccept)
		b.bytes(unix.NFTA_TRACE_LL_HEADER, frame[:14])
		b.bytes(unix.NFTA_TRACE_NETWORK_HEADER, frame[14:54])
		b.bytes(unix.NFTA_TRACE_TRANSPORT_HEADER, frame[34:54])
	}).body)
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := decodeTrace(message{kind: netlinkNFT | unix.NFT_MSG_TRACE, body: body})
		if err != nil {
			return
		}
		if len(e.link)+len(e.network)+len(e.transport)+len(e.table)+len(e.chain) > len(body) {
			t.Error("more headers than the message has")
		}
		p := e.packet()
		if p.IP != nil && p.EtherType != binary.BigEndian.Uint16([]byte{8, 0}) && p.EtherType != etherIPv6 {
			t.Errorf("an IP packet of type %#x", p.EtherType)
		}
		_ = e.verdictText()
	})
}
