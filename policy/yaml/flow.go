package yaml

import (
	"fmt"
	"strings"
)

// flow reads [a, b] or {a: b}. parent is the column of the block map or list around it: a line that starts there or further
// left shows that a bracket was forgotten.
func (p *parser) flow(parent int) *Node {
	kind, end := Mapping, byte('}')
	if p.src[p.pos] == '[' {
		kind, end = Sequence, ']'
	}
	n := p.node(kind, Flow)
	p.depth++
	if p.depth > p.opt.Depth {
		p.fail(p.pos, fmt.Sprintf("more than %d levels", p.opt.Depth), "")
		return n
	}
	p.pos++
	for p.flowSkip(n, parent) {
		if p.src[p.pos] == end {
			p.pos++
			break
		}
		if kind == Mapping {
			p.flowPair(n, parent)
		} else {
			n.Items = append(n.Items, p.flowValue(n, parent))
		}
		p.flowNext(n, parent, end)
	}
	p.depth--
	n.End = p.pos
	return n
}

// flowSkip moves to the next token inside the flow node n.
func (p *parser) flowSkip(n *Node, parent int) bool {
	p.skip()
	if p.failed {
		return false
	}
	open := p.src[n.Offset]
	if p.eof() {
		p.fail(n.Offset, fmt.Sprintf("%q is never closed", open), "")
		return false
	}
	c := p.src[p.pos]
	if p.line != n.Line && p.pos-p.bol <= parent && c != ']' && c != '}' {
		p.fail(n.Offset, fmt.Sprintf("%q is not closed before line %d", open, p.line), "close it, or indent the lines that belong to it")
		return false
	}
	return true
}

// flowNext takes the comma after an entry, or leaves the closing bracket to the caller.
func (p *parser) flowNext(n *Node, parent int, end byte) {
	p.bounded()
	if !p.flowSkip(n, parent) {
		return
	}
	switch c := p.src[p.pos]; {
	case c == ',':
		p.pos++
	case c == end:
	case c == ':':
		p.fail(p.pos, "a key inside a list", "a map inside a list needs braces; text with a colon at its end needs quotes")
	case c == ']' || c == '}':
		p.fail(p.pos, fmt.Sprintf("%q closes %q", c, p.src[n.Offset]), "")
	default:
		p.fail(p.pos, fmt.Sprintf("expected a comma or %q", end), "a text over several lines, or with brackets in it, needs quotes")
	}
}

// flowPair reads one entry of a flow map.
func (p *parser) flowPair(n *Node, parent int) {
	switch c := p.src[p.pos]; c {
	case '[', '{':
		p.fail(p.pos, "a key that is a map or a list", "")
	case '*':
		p.fail(p.pos, "a key that is an alias", "")
	}
	key := p.flowScalar(n, parent)
	val := &Node{Line: key.Line, Col: key.Col, Offset: p.pos, End: p.pos}
	if p.flowSkip(n, parent) && p.src[p.pos] == ':' {
		p.pos++
		if p.flowSkip(n, parent) && p.src[p.pos] != ',' && p.src[p.pos] != '}' {
			val = p.flowValue(n, parent)
		}
	}
	n.Pairs = append(n.Pairs, Pair{Key: key, Value: val})
}

// flowValue reads one value inside the flow node n.
func (p *parser) flowValue(n *Node, parent int) *Node {
	anchor := ""
	if p.src[p.pos] == '&' {
		if anchor = p.name("anchor"); p.failed {
			return n
		}
		p.anchors[anchor] = nil
		if !p.flowSkip(n, parent) {
			return n
		}
	}
	var v *Node
	switch c := p.src[p.pos]; c {
	case '[', '{':
		v = p.flow(parent)
	case '*':
		v = p.alias()
	default:
		v = p.flowScalar(n, parent)
	}
	if anchor != "" {
		v.Anchor = anchor
		p.anchors[anchor] = v
	}
	return v
}

// flowScalar reads a quoted or plain scalar inside a flow node.
func (p *parser) flowScalar(n *Node, parent int) *Node {
	if p.failed {
		return n
	}
	c := p.src[p.pos]
	if c == '"' || c == '\'' {
		return p.quoted(parent)
	}
	if c == ',' {
		p.fail(p.pos, "a comma without a value before it", "")
		return n
	}
	if c == '-' && p.blankAt(p.pos+1) {
		p.fail(p.pos, "a list item with a dash inside brackets", "separate the items by commas")
		return n
	}
	if p.indicator(c) {
		return n
	}
	if c == '|' || c == '>' {
		p.fail(p.pos, "a block text inside brackets", "quote the text")
		return n
	}
	v := p.node(Scalar, Plain)
	start := p.pos
	for p.pos < len(p.src) && !p.flowPlainEnds() {
		p.pos++
	}
	v.Value = strings.TrimRight(p.src[start:p.pos], " \t\r")
	v.End = start + len(v.Value)
	if v.Value == "" {
		p.fail(start, "a value is missing", "")
	}
	return v
}

// flowPlainEnds reports whether a plain scalar inside a flow node ends before pos.
func (p *parser) flowPlainEnds() bool {
	switch p.src[p.pos] {
	case ',', '[', ']', '{', '}', '\n':
		return true
	case ':':
		return p.blankAt(p.pos+1) || strings.IndexByte(",[]{}", p.src[p.pos+1]) >= 0
	case '#':
		return p.blankAt(p.pos - 1)
	}
	return false
}
