package filter_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
	"strings"

	"github.com/bladenet/bladenet/policy/filter"
)

// machine runs a table of typed rules on frames as nftables does: a load beyond the packet ends its rule, a miss goes on. It
// is the kernel's part in tests that need no kernel.
type machine struct {
	table  filter.Table
	sets   map[string]filter.Set
	exact  map[string]map[string]string // set, key, chain
	chains map[string]filter.Chain
}

func newMachine(t filter.Table) *machine {
	m := &machine{table: t, sets: map[string]filter.Set{}, exact: map[string]map[string]string{}, chains: map[string]filter.Chain{}}
	for _, s := range t.Sets {
		m.sets[s.Name] = s
		m.exact[s.Name] = map[string]string{}
		for _, e := range s.Elements {
			m.exact[s.Name][e.From] = e.Goto
		}
	}
	for _, c := range t.Chains {
		m.chains[c.Name] = c
	}
	return m
}

// frame is a frame at a hook, with the headers that the kernel has found.
type frame struct {
	data      []byte
	in, out   string
	bridge    string
	network   int
	transport int // -1: none
	later     bool
	protocol  byte
	state     uint32
	untracked bool
	reason    string
}

func parse(data []byte, in, out, bridge string) *frame {
	f := &frame{data: data, in: in, out: out, bridge: bridge, network: 14, transport: -1}
	kind := binary.BigEndian.Uint16(data[12:])
	if kind == 0x8100 {
		f.network, kind = 18, binary.BigEndian.Uint16(data[16:])
	}
	body := data[f.network:]
	switch {
	case kind == 0x0800 && len(body) >= 20:
		f.protocol = body[9]
		f.later = binary.BigEndian.Uint16(body[6:])&0x1fff != 0
		f.transport = f.network + int(body[0]&15)*4
	case kind == 0x86dd && len(body) >= 40:
		f.parseIPv6(body)
	}
	return f
}

func (f *frame) parseIPv6(body []byte) {
	next, at := body[6], 40
	for {
		switch next {
		case 0, 43, 60:
			next, at = body[at], at+8
		case 44:
			f.later = binary.BigEndian.Uint16(body[at+2:])&0xfff8 != 0
			next, at = body[at], at+8
		default:
			f.protocol, f.transport = next, f.network+at
			return
		}
	}
}

// load reads a field; false means that the rule ends here.
func (f *frame) load(field filter.Field) ([]byte, bool) {
	s := field.Shape()
	name := func(text string) ([]byte, bool) {
		return append([]byte(text), make([]byte, 16-len(text))...), text != ""
	}
	base := 0
	switch s.Header {
	case filter.FromMeta:
		switch s.Meta {
		case filter.MetaInPort:
			return name(f.in)
		case filter.MetaOutPort:
			return name(f.out)
		case filter.MetaInBridge, filter.MetaOutBridge:
			return name(f.bridge)
		}
		return []byte{f.protocol}, f.transport >= 0
	case filter.FromConntrack:
		state := f.state
		if f.untracked {
			state = 64
		}
		return binary.NativeEndian.AppendUint32(nil, state), true
	case filter.FromNetwork:
		base = f.network
	case filter.FromTransport:
		if f.transport < 0 || f.later {
			return nil, false
		}
		base = f.transport
	}
	from := base + s.Offset
	if from+s.Bytes > len(f.data) {
		return nil, false
	}
	return f.data[from : from+s.Bytes], true
}

// hook runs the base chains of a hook and says whether the frame passes.
func (m *machine) hook(h filter.Hook, f *frame) bool {
	for _, c := range m.table.Chains {
		if c.Hook == h && m.run(c, f, 0) == filter.Drop {
			return false
		}
	}
	return true
}

// run returns accept or drop, or return when the chain ends without either.
func (m *machine) run(c filter.Chain, f *frame, depth int) filter.VerdictKind {
	if depth > 16 {
		panic("filter: chains go in a circle: " + c.Name)
	}
	for _, r := range c.Rules {
		v, ended := m.rule(r, f, depth)
		if ended {
			return v
		}
	}
	return filter.Return
}

func (m *machine) rule(r filter.Rule, f *frame, depth int) (filter.VerdictKind, bool) {
	for _, s := range r.Statements {
		switch s := s.(type) {
		case filter.Match:
			value, ok := f.load(s.Field)
			if !ok || !matches(s, value) {
				return "", false
			}
		case filter.Lookup:
			key, ok := f.key(s.Fields)
			if !ok || m.has(s.Set, key) == s.Not {
				return "", false
			}
		case filter.Dispatch:
			key, ok := f.key([]filter.Field{s.Field})
			if !ok {
				return "", false
			}
			if chain, found := m.exact[s.Map][key]; found {
				return m.run(m.chains[chain], f, depth+1), true
			}
		case filter.Count:
			if s.Counter != "" {
				f.reason = s.Counter
			}
		case filter.Hit, filter.Limit:
		case filter.Meter:
			return "", false // nobody is ever over a limit here
		case filter.Notrack:
			f.untracked = true
		case filter.Decide:
			return m.decide(s, f, depth)
		default:
			panic(fmt.Sprintf("%T", s))
		}
	}
	return "", false
}

func (m *machine) decide(d filter.Decide, f *frame, depth int) (filter.VerdictKind, bool) {
	switch d.Kind {
	case filter.Jump:
		v := m.run(m.chains[d.Chain], f, depth+1)
		return v, v != filter.Return
	case filter.Goto:
		return m.run(m.chains[d.Chain], f, depth+1), true
	}
	return d.Kind, true
}

func matches(m filter.Match, value []byte) bool {
	if m.Field == filter.ConnState {
		return binary.NativeEndian.Uint32(value)&binary.NativeEndian.Uint32(m.Value) != 0
	}
	if m.Mask != nil {
		masked := make([]byte, len(value))
		for i := range value {
			masked[i] = value[i] & m.Mask[i]
		}
		value = masked
	}
	return bytes.Equal(value, m.Value) != m.Not
}

func (f *frame) key(fields []filter.Field) (string, bool) {
	var out []byte
	for _, field := range fields {
		value, ok := f.load(field)
		if !ok {
			return "", false
		}
		out = append(out, value...)
		for len(fields) > 1 && len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return string(out), true
}

func (m *machine) has(set, key string) bool {
	s, ok := m.sets[set]
	if !ok {
		panic("filter: no set " + set)
	}
	if !s.Interval {
		_, found := m.exact[set][key]
		return found
	}
	for _, e := range s.Elements {
		if within(s, e, key) {
			return true
		}
	}
	return false
}

func within(s filter.Set, e filter.Element, key string) bool {
	at := 0
	for _, f := range s.Key {
		n := f.Shape().Padded()
		if part := key[at : at+n]; part < e.From[at:at+n] || part > e.To[at:at+n] {
			return false
		}
		at += n
	}
	return true
}

// tally counts what a differential test has seen, to show that it has seen something of everything.
type tally map[string]int

func (t tally) String() string {
	var lines []string
	for k, n := range t {
		lines = append(lines, fmt.Sprintf("%s %d", k, n))
	}
	sort.Strings(lines)
	return strings.Join(lines, ", ")
}
