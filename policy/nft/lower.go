package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
)

// lower writes a rule in the kernel's expressions.
func lower(r filter.Rule) []expr.Any {
	var out []expr.Any
	for _, s := range r.Statements {
		out = append(out, lowerStatement(s)...)
	}
	return out
}

func lowerStatement(s filter.Statement) []expr.Any {
	switch s := s.(type) {
	case filter.Match:
		return lowerMatch(s)
	case filter.Lookup:
		return append(loads(s.Fields), &expr.Lookup{SourceRegister: register(0), SetName: s.Set, Invert: s.Not})
	case filter.Dispatch:
		return append(
			loads([]filter.Field{s.Field}),
			&expr.Lookup{SourceRegister: register(0), SetName: s.Map, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT},
		)
	case filter.Count:
		if s.Counter == "" {
			return []expr.Any{&expr.Counter{}}
		}
		return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: s.Counter}}
	case filter.Hit:
		return append(loads([]filter.Field{s.Field}), &expr.Dynset{
			SrcRegKey: register(0), SetName: s.Set, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{&expr.Counter{}},
		})
	case filter.Meter:
		var over expr.Any = &expr.Connlimit{Count: uint32(s.Connections), Flags: expr.NFT_CONNLIMIT_F_INV}
		if s.Connections == 0 {
			limit := lowerLimit(s.Rate)
			limit.Over, over = true, limit
		}
		return append(loads([]filter.Field{s.Field}), &expr.Dynset{
			SrcRegKey: register(0), SetName: s.Set, Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{over},
		})
	case filter.Limit:
		return []expr.Any{lowerLimit(s)}
	case filter.Notrack:
		return []expr.Any{&expr.Notrack{}}
	case filter.Decide:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictKind(int32(verdictCode(s.Kind))), Chain: s.Chain}}
	}
	panic("nft: unknown statement")
}

func lowerLimit(l filter.Limit) *expr.Limit {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(l.PerSecond), Unit: expr.LimitTimeSecond, Burst: uint32(l.Burst)}
}

func lowerMatch(m filter.Match) []expr.Any {
	width := uint32(m.Field.Shape().Bytes)
	out := loads([]filter.Field{m.Field})
	op, value, mask := expr.CmpOpEq, m.Value, m.Mask
	if m.Not {
		op = expr.CmpOpNeq
	}
	if m.Field == filter.ConnState {
		// One of several states: some bit of the mask is set.
		op, mask, value = expr.CmpOpNeq, m.Value, make([]byte, width)
	}
	if mask != nil {
		out = append(out, &expr.Bitwise{
			SourceRegister: register(0), DestRegister: register(0), Len: width, Mask: mask, Xor: make([]byte, width),
		})
	}
	return append(out, &expr.Cmp{Op: op, Register: register(0), Data: value})
}

// loads reads fields into registers, one behind the other, each from the next four-byte word on.
func loads(fields []filter.Field) []expr.Any {
	var out []expr.Any
	word := 0
	for _, f := range fields {
		shape := f.Shape()
		out = append(out, load(shape, register(word)))
		word += shape.Padded() / 4
	}
	return out
}

// register names a four-byte word as the kernel does when it reads a rule back: the first of four by the number of its 16 bytes.
func register(word int) uint32 {
	if word%4 == 0 {
		return uint32(unix.NFT_REG_1 + word/4)
	}
	return uint32(unix.NFT_REG32_00 + word)
}

func load(s filter.Shape, reg uint32) expr.Any {
	switch s.Header {
	case filter.FromMeta:
		return &expr.Meta{Key: metaKey(s.Meta), Register: reg}
	case filter.FromConntrack:
		return &expr.Ct{Key: expr.CtKeySTATE, Register: reg}
	}
	base := expr.PayloadBaseTransportHeader
	switch s.Header {
	case filter.FromLink:
		base = expr.PayloadBaseLLHeader
	case filter.FromNetwork:
		base = expr.PayloadBaseNetworkHeader
	}
	return &expr.Payload{DestRegister: reg, Base: base, Offset: uint32(s.Offset), Len: uint32(s.Bytes)}
}

func metaKey(k filter.MetaKey) expr.MetaKey {
	switch k {
	case filter.MetaInPort:
		return expr.MetaKeyIIFNAME
	case filter.MetaOutPort:
		return expr.MetaKeyOIFNAME
	case filter.MetaInBridge:
		return expr.MetaKeyBRIIIFNAME
	case filter.MetaOutBridge:
		return expr.MetaKeyBRIOIFNAME
	case filter.MetaVersion:
		return expr.MetaKeyNFPROTO
	}
	return expr.MetaKeyL4PROTO
}

// keyType is the number that nft gives to a concatenation of types: six bits each, the first in the highest place.
func keyType(fields []filter.Field) uint32 {
	var out uint32
	for _, f := range fields {
		t := dataType(f.Shape().Type)
		out = out<<nftables.SetConcatTypeBits | t.GetNFTMagic()
	}
	return out
}

func dataType(name string) nftables.SetDatatype {
	for _, t := range []nftables.SetDatatype{
		nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeInetProto,
		nftables.TypeInetService, nftables.TypeInteger,
	} {
		if t.Name == name {
			return t
		}
	}
	panic("nft: no data type " + name)
}
