package filter

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Text writes the ruleset in the language of `nft -f` (nft(8), 1.0.6 and later). Each table is declared, deleted and written
// anew, so that loading it replaces what was there in one transaction. The same ruleset gives the same text.
func (r Ruleset) Text() string {
	var b strings.Builder
	for i, t := range r.Tables {
		if i > 0 {
			b.WriteByte('\n')
		}
		name := string(t.Family) + " " + t.Name
		fmt.Fprintf(&b, "add table %s\ndelete table %s\ntable %s {\n", name, name, name)
		t.writeBody(&b)
		b.WriteString("}\n")
	}
	return b.String()
}

func (t Table) writeBody(b *strings.Builder) {
	for _, c := range t.Counters {
		fmt.Fprintf(b, "\tcounter %s { }\n", c)
	}
	for _, s := range t.Sets {
		b.WriteByte('\n')
		s.write(b)
	}
	for _, c := range t.Chains {
		b.WriteByte('\n')
		c.write(b)
	}
}

func (s Set) write(b *strings.Builder) {
	kind := "set"
	if s.Map {
		kind = "map"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\t%s\n", kind, s.Name, s.declaration())
	if s.Size > 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	switch {
	case s.Interval:
		b.WriteString("\t\tflags interval\n")
	case s.Dynamic:
		b.WriteString("\t\tflags dynamic\n")
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = {\n")
		for _, e := range s.Elements {
			fmt.Fprintf(b, "\t\t\t%s,\n", s.ElementText(e))
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n")
}

// Raw says whether the set must be declared by what it reads, because nft has no type for it.
func (s Set) Raw() bool {
	for _, f := range s.Key {
		if f.Shape().Raw {
			return true
		}
	}
	return false
}

func (s Set) declaration() string {
	var parts []string
	for _, f := range s.Key {
		if s.Raw() {
			parts = append(parts, f.Shape().Text)
		} else {
			parts = append(parts, f.Shape().Type)
		}
	}
	text := strings.Join(parts, " . ")
	if s.Map {
		text += " : verdict"
	}
	if s.Raw() {
		return "typeof " + text
	}
	return "type " + text
}

// ElementText writes one element as it stands between the braces of a set.
func (s Set) ElementText(e Element) string {
	var parts []string
	at := 0
	for _, f := range s.Key {
		shape := f.Shape()
		first := []byte(e.From)[at : at+shape.Bytes]
		last := first
		if e.To != "" {
			last = []byte(e.To)[at : at+shape.Bytes]
		}
		parts = append(parts, spanText(shape, first, last))
		at += shape.Padded()
	}
	text := strings.Join(parts, " . ")
	if s.Map {
		text += " : goto " + e.Goto
	}
	return text
}

// spanText writes a field's value, or the values from first to last.
func spanText(shape Shape, first, last []byte) string {
	text := valueText(shape, first)
	if bytes.Equal(first, last) {
		return text
	}
	if bits, ok := prefixBits(first, last); ok && strings.HasSuffix(shape.Type, "_addr") {
		return text + "/" + strconv.Itoa(bits)
	}
	return text + "-" + valueText(shape, last)
}

// prefixBits is the length of the prefix that spans exactly from first to last.
func prefixBits(first, last []byte) (int, bool) {
	bits := 0
	for i := range first {
		diff := first[i] ^ last[i]
		if diff == 0 {
			bits += 8
			continue
		}
		n := 8
		for d := diff; d != 0; d >>= 1 {
			n--
		}
		bits += n
		want := byte(0xff >> n)
		if diff != want || first[i]&want != 0 {
			return 0, false
		}
		for j := i + 1; j < len(first); j++ {
			if first[j] != 0 || last[j] != 0xff {
				return 0, false
			}
		}
		return bits, true
	}
	return bits, true
}

// valueText writes a field's value as nft reads it.
func valueText(shape Shape, value []byte) string {
	switch shape.Type {
	case "ifname":
		return strconv.Quote(string(bytes.TrimRight(value, "\x00")))
	case "ether_addr":
		return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", value[0], value[1], value[2], value[3], value[4], value[5])
	case "ipv4_addr", "ipv6_addr":
		a, _ := netip.AddrFromSlice(value)
		return a.String()
	case "ct_state":
		return stateText(binary.NativeEndian.Uint32(value))
	case "integer":
		if shape.Raw {
			return "0x" + hex.EncodeToString(value)
		}
	case "ether_type":
		return fmt.Sprintf("0x%04x", binary.BigEndian.Uint16(value))
	}
	var n uint64
	for _, b := range value {
		n = n<<8 | uint64(b)
	}
	return strconv.FormatUint(n, 10)
}

func stateText(bits uint32) string {
	var names []string
	for _, s := range []struct {
		bit  uint32
		name string
	}{{stateInvalid, "invalid"}, {stateEstablished, "established"}, {stateRelated, "related"}, {stateNew, "new"}, {stateUntracked, "untracked"}} {
		if bits&s.bit != 0 {
			names = append(names, s.name)
		}
	}
	return strings.Join(names, ",")
}

func (c Chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Hook != "" {
		fmt.Fprintf(b, "\t\ttype filter hook %s priority %d; policy accept;\n", c.Hook, c.Priority)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", r)
	}
	b.WriteString("\t}\n")
}

// String writes the rule as one line of nft's language.
func (r Rule) String() string {
	var parts []string
	for _, s := range r.Statements {
		parts = append(parts, statementText(s))
	}
	if r.Comment != "" {
		parts = append(parts, "comment "+strconv.Quote(r.Comment))
	}
	return strings.Join(parts, " ")
}

func statementText(s Statement) string {
	switch s := s.(type) {
	case Match:
		return matchText(s)
	case Lookup:
		op := ""
		if s.Not {
			op = "!= "
		}
		return concatenation(s.Fields) + " " + op + "@" + s.Set
	case Dispatch:
		return s.Field.Shape().Text + " vmap @" + s.Map
	case Count:
		if s.Counter == "" {
			return "counter"
		}
		return "counter name " + s.Counter
	case Hit:
		return "update @" + s.Set + " { " + s.Field.Shape().Text + " counter }"
	case Meter:
		over := fmt.Sprintf("ct count over %d", s.Connections)
		if s.Connections == 0 {
			over = fmt.Sprintf("limit rate over %d/second burst %d packets", s.Rate.PerSecond, s.Rate.Burst)
		}
		return "add @" + s.Set + " { " + s.Field.Shape().Text + " " + over + " }"
	case Limit:
		return fmt.Sprintf("limit rate %d/second burst %d packets", s.PerSecond, s.Burst)
	case Notrack:
		return "notrack"
	case Decide:
		return strings.TrimSpace(string(s.Kind) + " " + s.Chain)
	}
	panic(fmt.Sprintf("filter: unknown statement %T", s))
}

func concatenation(fields []Field) string {
	var parts []string
	for _, f := range fields {
		parts = append(parts, f.Shape().Text)
	}
	return strings.Join(parts, " . ")
}

func matchText(m Match) string {
	shape := m.Field.Shape()
	value := valueText(shape, m.Value)
	op := ""
	if m.Not {
		op = "!= "
	}
	if m.Mask == nil {
		return shape.Text + " " + op + value
	}
	if op == "" {
		op = "== "
	}
	return shape.Text + " & " + valueText(shape, m.Mask) + " " + op + value
}
