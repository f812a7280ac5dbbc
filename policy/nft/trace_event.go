package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// traceEvent is one message of the kernel on a packet that is being followed (net/netfilter/nf_tables_trace.c): a rule that it met, or the
// end of a chain. Only the first event of a packet in each hook carries its headers and interfaces.
type traceEvent struct {
	id           uint32 // of the packet; the same in all hooks
	family       byte
	table, chain string
	rule         uint64 // handle; of a rule only
	kind         uint32 // NFT_TRACETYPE_*
	verdict      int32  // of a rule and a return; of a base chain's end it is the policy
	target       string // of a jump or goto
	in, out      uint32 // interface indexes, 0: none
	link         []byte // at most 20 bytes
	network      []byte // at most 40
	transport    []byte // at most 20
}

// errNoTrace says that a message is whole but is no trace event.
var errNoTrace = errors.New("no trace event")

// decodeTrace reads one netfilter message. What it returns shares the message's bytes.
func decodeTrace(m message) (traceEvent, error) {
	if m.kind != netlinkNFT|unix.NFT_MSG_TRACE {
		return traceEvent{}, errNoTrace
	}
	if len(m.body) < 4 {
		return traceEvent{}, fmt.Errorf("decode trace event: %d bytes", len(m.body))
	}
	e := traceEvent{family: m.body[0]}
	if err := eachAttribute(m.body[4:], e.attribute); err != nil {
		return traceEvent{}, fmt.Errorf("decode trace event: %w", err)
	}
	if e.table == "" || e.chain == "" || e.kind == 0 {
		return traceEvent{}, errors.New("decode trace event: no table, chain or type")
	}
	return e, nil
}

// attribute reads one attribute; those that it does not know are left out.
func (e *traceEvent) attribute(kind uint16, value []byte) (err error) {
	switch kind {
	case unix.NFTA_TRACE_TABLE:
		e.table = attributeText(value)
	case unix.NFTA_TRACE_CHAIN:
		e.chain = attributeText(value)
	case unix.NFTA_TRACE_RULE_HANDLE:
		if len(value) != 8 {
			return fmt.Errorf("rule handle of %d bytes", len(value))
		}
		e.rule = binary.BigEndian.Uint64(value)
	case unix.NFTA_TRACE_TYPE:
		e.kind, err = attributeWord(value)
	case unix.NFTA_TRACE_VERDICT:
		err = eachAttribute(value, e.verdictAttribute)
	case unix.NFTA_TRACE_POLICY:
		var policy uint32
		policy, err = attributeWord(value)
		e.verdict = int32(policy)
	case unix.NFTA_TRACE_ID:
		e.id, err = attributeWord(value)
	case unix.NFTA_TRACE_IIF:
		e.in, err = attributeWord(value)
	case unix.NFTA_TRACE_OIF:
		e.out, err = attributeWord(value)
	case unix.NFTA_TRACE_LL_HEADER:
		e.link = value
	case unix.NFTA_TRACE_NETWORK_HEADER:
		e.network = value
	case unix.NFTA_TRACE_TRANSPORT_HEADER:
		e.transport = value
	}
	return err
}

func (e *traceEvent) verdictAttribute(kind uint16, value []byte) error {
	switch kind {
	case unix.NFTA_VERDICT_CODE:
		code, err := attributeWord(value)
		e.verdict = int32(code)
		return err
	case unix.NFTA_VERDICT_CHAIN:
		e.target = attributeText(value)
	}
	return nil
}

func attributeWord(value []byte) (uint32, error) {
	if len(value) != 4 {
		return 0, fmt.Errorf("number of %d bytes, want 4", len(value))
	}
	return binary.BigEndian.Uint32(value), nil
}

func attributeText(value []byte) string { return string(bytes.TrimRight(value, "\x00")) }

// eachAttribute hands over each netlink attribute of a row, and ends at the first error.
func eachAttribute(data []byte, do func(kind uint16, value []byte) error) error {
	for len(data) >= 4 {
		length := int(binary.NativeEndian.Uint16(data))
		if length < 4 || length > len(data) {
			return fmt.Errorf("attribute of %d bytes in %d", length, len(data))
		}
		if err := do(binary.NativeEndian.Uint16(data[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[4:length]); err != nil {
			return err
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return nil
}

// verdictText is a verdict in nft's words.
func (e traceEvent) verdictText() string {
	switch e.verdict {
	case netfilterDrop:
		return "drop"
	case netfilterAccept:
		return "accept"
	case unix.NFT_CONTINUE:
		return "continue"
	case unix.NFT_JUMP:
		return "jump " + e.target
	case unix.NFT_GOTO:
		return "goto " + e.target
	case unix.NFT_RETURN:
		return "return"
	}
	return fmt.Sprintf("verdict %d", e.verdict)
}
