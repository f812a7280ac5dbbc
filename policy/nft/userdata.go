package nft

import (
	"encoding/binary"

	"github.com/bladenet/bladenet/policy/filter"
)

// What the nft tool keeps beside a set to show it again (libnftnl include/libnftnl/udata.h, nftables include/expression.h). The
// kernel does not read it; without it `nft list` shows raw keys as garbage.
const (
	udataRuleComment = 0

	udataSetByteOrder     = 0
	udataSetDataByteOrder = 1
	udataSetKeyTypeof     = 3
	udataSetDataInterval  = 6

	// of a typeof, and of each part of a concatenation, whose own type is its place
	udataExpression = 0
	udataData       = 1

	udataMetaKey = 0

	udataPayloadProtocol = 0
	udataPayloadField    = 1
	udataPayloadBase     = 2
	udataPayloadOffset   = 3 // bits
	udataPayloadLength   = 4 // bits
)

// The tool's own numbers for expressions and for the protocol fields that our raw sets use (nftables include/expression.h,
// proto.h).
const (
	toolPayload = 7
	toolMeta    = 9
	toolConcat  = 13

	toolIPv4  = 12
	toolIPv6  = 13
	toolEther = 17
)

// toolField is a header of the tool's and a field of it.
type toolField struct{ protocol, field uint32 }

// toolFields are the fields of our raw sets that the tool has names for. What it has none for it describes by its place.
var toolFields = map[filter.Field]toolField{
	filter.EtherSource: {toolEther, 2},
	filter.IPv4Source:  {toolIPv4, 11}, filter.IPv4Destination: {toolIPv4, 12},
	filter.IPv6Source: {toolIPv6, 8}, filter.IPv6Destination: {toolIPv6, 9},
}

// Byte orders of a set's key: none for a concatenation.
const (
	orderNone = iota
	orderHost
	orderBig
)

func comment(text string) []byte { return attribute(nil, udataRuleComment, append([]byte(text), 0)) }

// attribute appends one type-length-value; type and length have a byte each.
func attribute(to []byte, kind byte, value []byte) []byte {
	return append(append(to, kind, byte(len(value))), value...)
}

func attributeNumber(to []byte, kind byte, value uint32) []byte {
	return attribute(to, kind, binary.NativeEndian.AppendUint32(nil, value))
}

func userData(s filter.Set) []byte {
	out := attributeNumber(nil, udataSetByteOrder, byteOrder(s.Key))
	if s.Map {
		out = attributeNumber(out, udataSetDataByteOrder, orderNone)
		out = attributeNumber(out, udataSetDataInterval, 0)
	}
	if len(s.Key) > 1 || s.Raw() {
		out = attribute(out, udataSetKeyTypeof, typeof(s))
	}
	return out
}

func byteOrder(fields []filter.Field) uint32 {
	switch {
	case len(fields) > 1:
		return orderNone
	case fields[0].Shape().Type == "ifname":
		return orderHost
	}
	return orderBig
}

// typeof says what the set's key is read from. Where types say enough, the tool leaves a concatenation's parts out.
func typeof(s filter.Set) []byte {
	if len(s.Key) == 1 {
		return expression(s.Key[0])
	}
	var parts []byte
	if s.Raw() {
		for i, f := range s.Key {
			parts = attribute(parts, byte(i), expression(f))
		}
	}
	return attribute(attributeNumber(nil, udataExpression, toolConcat), udataData, parts)
}

func expression(f filter.Field) []byte {
	shape := f.Shape()
	if shape.Header == filter.FromMeta {
		data := attributeNumber(nil, udataMetaKey, uint32(metaKey(shape.Meta)))
		return attribute(attributeNumber(nil, udataExpression, toolMeta), udataData, data)
	}
	named, ok := toolFields[f]
	data := attributeNumber(attributeNumber(nil, udataPayloadProtocol, named.protocol), udataPayloadField, named.field)
	if !ok {
		data = attributeNumber(data, udataPayloadBase, toolBase(shape.Header))
		data = attributeNumber(data, udataPayloadOffset, uint32(shape.Offset*8))
		data = attributeNumber(data, udataPayloadLength, uint32(shape.Bytes*8))
	}
	return attribute(attributeNumber(nil, udataExpression, toolPayload), udataData, data)
}

// toolBase is the tool's number of a header, one more than the kernel's.
func toolBase(h filter.Header) uint32 {
	switch h {
	case filter.FromLink:
		return 1
	case filter.FromNetwork:
		return 2
	}
	return 3
}
