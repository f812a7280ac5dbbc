package nft

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
)

// Attributes and flags that golang.org/x/sys does not name (include/uapi/linux/netfilter/nf_tables.h).
const (
	setDescConcat  = 2
	setElemKeyEnd  = 10
	setFlagConcat  = 0x80
	setFieldLength = 1

	netfilterDrop   = 0 // include/uapi/linux/netfilter.h
	netfilterAccept = 1
)

// A message carries so many bytes of elements: an attribute's length has 16 bits, and the kernel's dump of one must fit a page.
const (
	elementBytes = 32 << 10
	elementCount = 900
)

func family(f filter.Family) byte {
	if f == filter.Bridge {
		return unix.NFPROTO_BRIDGE
	}
	return unix.NFPROTO_INET
}

// encoder appends one table's messages to a batch.
type encoder struct {
	*batch
	table  filter.Table
	family byte
}

func newEncoder(b *batch, t filter.Table) *encoder {
	return &encoder{batch: b, table: t, family: family(t.Family)}
}

// replaceTable makes the table what it should be, whatever stood there: in one transaction no packet sees a half of it.
func (e *encoder) replaceTable(keep counts) error {
	name := fmt.Sprintf("%s %s", e.table.Family, e.table.Name)
	e.tableMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add table "+name)
	e.tableMessage(unix.NFT_MSG_DELTABLE, 0, "delete table "+name)
	e.tableMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add table "+name)
	for _, c := range e.table.Counters {
		e.counter(c, keep.named[c])
	}
	for i, s := range e.table.Sets {
		e.set(s, uint32(i+1))
	}
	for _, c := range e.table.Chains {
		e.chain(c)
	}
	for _, s := range e.table.Sets {
		e.elements(unix.NFT_MSG_NEWSETELEM, s, s.Elements)
		e.hits(s, keep.hits[s.Name])
	}
	for _, c := range e.table.Chains {
		for _, r := range c.Rules {
			if err := e.rule(c, r); err != nil {
				return fmt.Errorf("encode rule %q: %w", r, err)
			}
		}
	}
	return nil
}

func (e *encoder) tableMessage(kind int, flags uint16, note string) {
	at := e.message(kind, flags, e.family, note)
	e.text(unix.NFTA_TABLE_NAME, e.table.Name)
	e.close(at)
}

func (e *encoder) counter(name string, value count) {
	at := e.message(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, e.family, "add counter "+name)
	e.text(unix.NFTA_OBJ_TABLE, e.table.Name)
	e.text(unix.NFTA_OBJ_NAME, name)
	e.number(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	data := e.nest(unix.NFTA_OBJ_DATA)
	e.long(unix.NFTA_COUNTER_BYTES, value.bytes)
	e.long(unix.NFTA_COUNTER_PACKETS, value.packets)
	e.shut(data)
	e.close(at)
}

func (e *encoder) chain(c filter.Chain) {
	at := e.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, e.family, "add chain "+c.Name)
	e.text(unix.NFTA_CHAIN_TABLE, e.table.Name)
	e.text(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != "" {
		hook := e.nest(unix.NFTA_CHAIN_HOOK)
		e.number(unix.NFTA_HOOK_HOOKNUM, hookNumber(c.Hook))
		e.number(unix.NFTA_HOOK_PRIORITY, uint32(int32(c.Priority)))
		e.shut(hook)
		e.number(unix.NFTA_CHAIN_POLICY, netfilterAccept)
		e.text(unix.NFTA_CHAIN_TYPE, "filter")
	}
	e.close(at)
}

// hookNumber is the same in the bridge and inet families (NF_BR_*, NF_INET_*).
func hookNumber(h filter.Hook) uint32 {
	switch h {
	case filter.Prerouting:
		return unix.NF_INET_PRE_ROUTING
	case filter.Input:
		return unix.NF_INET_LOCAL_IN
	case filter.Forward:
		return unix.NF_INET_FORWARD
	case filter.Output:
		return unix.NF_INET_LOCAL_OUT
	}
	panic("nft: unknown hook " + string(h))
}

func (e *encoder) set(s filter.Set, id uint32) {
	at := e.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, e.family, "add set "+s.Name)
	e.text(unix.NFTA_SET_TABLE, e.table.Name)
	e.text(unix.NFTA_SET_NAME, s.Name)
	e.number(unix.NFTA_SET_FLAGS, setFlags(s))
	e.number(unix.NFTA_SET_KEY_TYPE, keyType(s.Key))
	e.number(unix.NFTA_SET_KEY_LEN, uint32(keyLength(s.Key)))
	if s.Map {
		e.number(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		e.number(unix.NFTA_SET_DATA_LEN, 0)
	}
	e.number(unix.NFTA_SET_ID, id)
	if s.Size > 0 || s.Interval {
		e.description(s)
	}
	e.bytes(unix.NFTA_SET_USERDATA, userData(s))
	e.close(at)
}

func (e *encoder) description(s filter.Set) {
	desc := e.nest(unix.NFTA_SET_DESC)
	if s.Size > 0 {
		e.number(unix.NFTA_SET_DESC_SIZE, uint32(s.Size))
	}
	if s.Interval {
		concat := e.nest(setDescConcat)
		for _, f := range s.Key {
			field := e.nest(unix.NFTA_LIST_ELEM)
			e.number(setFieldLength, uint32(f.Shape().Bytes))
			e.shut(field)
		}
		e.shut(concat)
	}
	e.shut(desc)
}

func setFlags(s filter.Set) uint32 {
	var flags uint32
	if s.Map {
		flags |= unix.NFT_SET_MAP
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL | setFlagConcat
	}
	return flags
}

// keyLength is the bytes of a key: a field on its own is not padded.
func keyLength(fields []filter.Field) int {
	if len(fields) == 1 {
		return fields[0].Shape().Bytes
	}
	n := 0
	for _, f := range fields {
		n += f.Shape().Padded()
	}
	return n
}

// elements writes elements in as many messages as they need.
func (e *encoder) elements(kind int, s filter.Set, elements []filter.Element) {
	for len(elements) > 0 {
		verb := "add elements to set "
		var flags uint16 = unix.NLM_F_CREATE
		if kind == unix.NFT_MSG_DELSETELEM {
			verb, flags = "delete elements from set ", 0
		}
		at := e.message(kind, flags, e.family, verb+s.Name)
		e.text(unix.NFTA_SET_ELEM_LIST_TABLE, e.table.Name)
		e.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		list := e.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(elements) && n < elementCount && len(e.buf)-list < elementBytes {
			e.element(elements[n])
			n++
		}
		e.shut(list)
		e.close(at)
		elements = elements[n:]
	}
}

func (e *encoder) element(x filter.Element) {
	at := e.nest(unix.NFTA_LIST_ELEM)
	e.value(unix.NFTA_SET_ELEM_KEY, x.From)
	if x.To != "" {
		e.value(setElemKeyEnd, x.To)
	}
	if x.Goto != "" {
		data := e.nest(unix.NFTA_SET_ELEM_DATA)
		verdict := e.nest(unix.NFTA_DATA_VERDICT)
		e.number(unix.NFTA_VERDICT_CODE, verdictCode(filter.Goto))
		e.text(unix.NFTA_VERDICT_CHAIN, x.Goto)
		e.shut(verdict)
		e.shut(data)
	}
	e.shut(at)
}

func (e *encoder) value(kind int, value string) {
	at := e.nest(kind)
	in := e.open(unix.NFTA_DATA_VALUE)
	e.buf = append(e.buf, value...)
	e.shut(in)
	e.shut(at)
}

func verdictCode(k filter.VerdictKind) uint32 {
	switch k {
	case filter.Accept:
		return netfilterAccept
	case filter.Drop:
		return netfilterDrop
	case filter.Return:
		return uint32(0xffffffff & int64(unix.NFT_RETURN))
	case filter.Jump:
		return uint32(0xffffffff & int64(unix.NFT_JUMP))
	case filter.Goto:
		return uint32(0xffffffff & int64(unix.NFT_GOTO))
	}
	panic("nft: unknown verdict " + string(k))
}

func (e *encoder) rule(c filter.Chain, r filter.Rule) error {
	return e.expressions(c, lower(r), r.Comment)
}

// expressions writes a rule that is given as the kernel's expressions.
func (e *encoder) expressions(c filter.Chain, list []expr.Any, note string) error {
	at := e.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, e.family, "add rule to chain "+c.Name)
	e.text(unix.NFTA_RULE_TABLE, e.table.Name)
	e.text(unix.NFTA_RULE_CHAIN, c.Name)
	nest := e.nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, x := range list {
		data, err := expr.Marshal(e.family, x)
		if err != nil {
			return err
		}
		e.bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
	}
	e.shut(nest)
	if note != "" {
		e.bytes(unix.NFTA_RULE_USERDATA, comment(note))
	}
	e.close(at)
	return nil
}

// hits puts counters that a replaced table had back under their ports.
func (e *encoder) hits(s filter.Set, kept map[string]count) {
	if !s.Dynamic || s.Metered || len(kept) == 0 {
		return
	}
	at := e.message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, e.family, "restore counters of set "+s.Name)
	e.text(unix.NFTA_SET_ELEM_LIST_TABLE, e.table.Name)
	e.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	list := e.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, port := range sortedKeys(kept) {
		elem := e.nest(unix.NFTA_LIST_ELEM)
		e.value(unix.NFTA_SET_ELEM_KEY, port)
		x := e.nest(unix.NFTA_SET_ELEM_EXPR)
		e.text(unix.NFTA_EXPR_NAME, "counter")
		data := e.nest(unix.NFTA_EXPR_DATA)
		e.long(unix.NFTA_COUNTER_BYTES, kept[port].bytes)
		e.long(unix.NFTA_COUNTER_PACKETS, kept[port].packets)
		e.shut(data)
		e.shut(x)
		e.shut(elem)
	}
	e.shut(list)
	e.close(at)
}
