package nft

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/plan"
)

// TestBatchIsWellFormed walks a whole ruleset's batch: messages and attributes fill their lengths exactly, and only the last
// message asks for an answer.
func TestBatchIsWellFormed(t *testing.T) {
	b := newBatch()
	for _, table := range filter.Compile(derived(t, "lame-l1")).Tables {
		if err := newEncoder(b, table).replaceTable(counts{}); err != nil {
			t.Fatal(err)
		}
	}
	data, last := b.finish()
	messages, asked := 0, 0
	for rest := data; len(rest) > 0; messages++ {
		length := int(binary.NativeEndian.Uint32(rest))
		if length < headerLength+4 || length > len(rest) || length%4 != 0 {
			t.Fatalf("message %d has length %d of %d", messages, length, len(rest))
		}
		if binary.NativeEndian.Uint16(rest[6:])&unix.NLM_F_ACK != 0 {
			asked++
			if seq := binary.NativeEndian.Uint32(rest[8:]); seq != last {
				t.Errorf("message %d is to be acknowledged, %d is waited for", seq, last)
			}
		}
		checkAttributes(t, rest[headerLength+4:length])
		rest = rest[length:]
	}
	if asked != 1 || messages < 300 {
		t.Errorf("%d messages, %d to be acknowledged", messages, asked)
	}
}

// TestEncode holds that what Encode shows is one whole transaction, and that blocked steps are not in it.
func TestEncode(t *testing.T) {
	steps, err := Plan(filter.Compile(derived(t, "lame-l1")), State{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := Encode(steps)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []uint16
	eachMessage(data, func(m message) { kinds = append(kinds, m.kind) })
	if len(kinds) < 300 || kinds[0] != unix.NFNL_MSG_BATCH_BEGIN || kinds[len(kinds)-1] != unix.NFNL_MSG_BATCH_END {
		t.Errorf("%d messages, from %d to %d", len(kinds), kinds[0], kinds[len(kinds)-1])
	}
	for i := range steps {
		steps[i].Verb = plan.Blocked
	}
	for _, none := range [][]Step{nil, steps} {
		if data, err := Encode(none); len(data) > 0 || err != nil {
			t.Errorf("%d steps without work: %d bytes, %v", len(none), len(data), err)
		}
	}
}

func checkAttributes(t *testing.T, data []byte) {
	t.Helper()
	for len(data) > 0 {
		length := int(binary.NativeEndian.Uint16(data))
		if length < 4 || length > len(data) {
			t.Fatalf("attribute of length %d in %d bytes", length, len(data))
		}
		if binary.NativeEndian.Uint16(data[2:])&unix.NLA_F_NESTED != 0 {
			checkAttributes(t, data[4:length])
		}
		data = data[min((length+3)&^3, len(data)):]
	}
}

// TestElementsAreChunked holds that a big set never overflows an attribute's 16-bit length.
func TestElementsAreChunked(t *testing.T) {
	set := filter.Set{Name: "big", Key: []filter.Field{filter.OutPort, filter.IPv6Destination, filter.Protocol, filter.DestinationPort}}
	for i := range 20000 {
		key := make([]byte, 40)
		binary.BigEndian.PutUint32(key[16:], uint32(i))
		set.Elements = append(set.Elements, filter.Element{From: string(key)})
	}
	b := newBatch()
	newEncoder(b, filter.Table{Family: filter.Bridge, Name: "t", Sets: []filter.Set{set}}).elements(unix.NFT_MSG_NEWSETELEM, set, set.Elements)
	data, _ := b.finish()
	chunks := 0
	eachMessage(data, func(m message) {
		if m.kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
			chunks++
			if len(m.body) > elementBytes+4096 {
				t.Errorf("a message of %d bytes", len(m.body))
			}
			checkAttributes(t, m.body[4:])
		}
	})
	if chunks < 20000/elementCount {
		t.Errorf("%d messages for 20000 elements", chunks)
	}
}

func TestIfnamesArePadded(t *testing.T) {
	for _, table := range filter.Compile(derived(t, "lame-l1")).Tables {
		for _, s := range table.Sets {
			if s.Key[0].Shape().Type != "ifname" {
				continue
			}
			for _, e := range s.Elements {
				if len(e.From) < 16 || e.From[15] != 0 {
					t.Errorf("set %s: %q is no padded name", s.Name, e.From)
				}
			}
		}
	}
}

// FuzzEvents feeds the decoders of kernel messages with anything: they must end, and read nothing beyond it.
func FuzzEvents(f *testing.F) {
	b := newBatch()
	for _, table := range filter.Compile(derived(f, "lame-l1")).Tables {
		if err := newEncoder(b, table).replaceTable(counts{}); err != nil {
			f.Fatal(err)
		}
	}
	data, _ := b.finish()
	f.Add(data[:4096], uint32(0))
	f.Add([]byte{16, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, uint32(7))
	f.Fuzz(func(t *testing.T, data []byte, own uint32) {
		concernsUs(data, own)
		eachMessage(data, func(m message) {
			firstText(m.body, unix.NFTA_TABLE_NAME)
			ruleComment(m.body)
		})
	})
}

func TestEventsOfOurTables(t *testing.T) {
	event := func(family byte, table string) []byte {
		b := newBatch()
		at := b.message(unix.NFT_MSG_NEWRULE, 0, family, "")
		b.text(unix.NFTA_RULE_TABLE, table)
		b.close(at)
		return b.buf[at:]
	}
	for _, c := range []struct {
		data []byte
		own  uint32
		want bool
	}{
		{event(unix.NFPROTO_BRIDGE, filter.BridgeTable), 5, true},
		{event(unix.NFPROTO_INET, filter.HostTable), 5, true},
		{event(unix.NFPROTO_BRIDGE, filter.BridgeTable), 0, false}, // by ourselves: events of test messages come from port 0
		{event(unix.NFPROTO_IPV4, filter.BridgeTable), 5, false},
		{event(unix.NFPROTO_BRIDGE, "stranger"), 5, false},
		{nil, 5, false},
	} {
		if got := concernsUs(c.data, c.own); got != c.want {
			t.Errorf("%d bytes, own %d: %v", len(c.data), c.own, got)
		}
	}
}
