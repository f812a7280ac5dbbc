package yaml

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads all documents of src. After a mistake it goes on with the next entry of the outermost map, so that one run shows
// the mistakes of every part; what it returns beside errors is incomplete.
func Parse(src string, opt Options) (File, []*Error) {
	p := &parser{src: src, line: 1, opt: opt, anchors: map[string]*Node{}}
	if p.opt.Nodes == 0 {
		p.opt.Nodes = 1_000_000
	}
	if p.opt.Depth == 0 {
		p.opt.Depth = 32
	}
	if p.opt.Errors == 0 {
		p.opt.Errors = 20
	}
	if !p.readable() {
		return File{}, p.errs
	}
	if strings.HasPrefix(src, "\ufeff") {
		p.pos, p.bol = len("\ufeff"), len("\ufeff")
	}
	p.stream()
	p.file.Nodes = p.nodes
	return p.file, p.errs
}

// parser holds one run. A mistake sets failed and moves to the end of the text, so that every loop ends by itself.
type parser struct {
	src     string
	pos     int
	line    int // of pos, from 1
	bol     int // offset of that line's first byte
	failed  bool
	failAt  int
	depth   int
	nodes   int
	colBol  int // the place of the last node: columns are counted on from it, so that a long line costs its length once
	colPos  int
	col     int
	opt     Options
	anchors map[string]*Node // nil while the anchored node is being read
	file    File
	errs    []*Error
}

// readable refuses what is no text before anything is parsed.
func (p *parser) readable() bool {
	for i := 0; i < len(p.src); {
		c := p.src[i]
		switch {
		case c >= ' ' && c < 0x7f || c == '\n' || c == '\t':
			i++
		case c == '\r' && i+1 < len(p.src) && p.src[i+1] == '\n':
			i++
		case c < utf8.RuneSelf:
			p.fail(i, fmt.Sprintf("control character 0x%02x", c), "a policy file is plain UTF-8 text")
			return false
		default:
			r, n := utf8.DecodeRuneInString(p.src[i:])
			if r == utf8.RuneError && n <= 1 {
				p.fail(i, fmt.Sprintf("byte 0x%02x is not UTF-8", c), "save the file as UTF-8")
				return false
			}
			if r >= 0x80 && r < 0xa0 && r != 0x85 {
				p.fail(i, fmt.Sprintf("control character U+%04X", r), "a policy file is plain UTF-8 text")
				return false
			}
			i += n
		}
	}
	return true
}

func (p *parser) fail(at int, message, hint string) {
	if p.failed {
		return
	}
	p.failed, p.failAt = true, at
	bol := strings.LastIndexByte(p.src[:at], '\n') + 1
	text := strings.TrimPrefix(p.src[bol:at], "\ufeff")
	p.errs = append(p.errs, &Error{
		Line: strings.Count(p.src[:bol], "\n") + 1, Col: utf8.RuneCountInString(text) + 1, Message: message, Hint: hint,
	})
	p.pos = len(p.src)
}

// stream reads documents until the text ends.
func (p *parser) stream() {
	for {
		p.bounded()
		p.skip()
		if p.pos >= len(p.src) {
			return
		}
		start := 0
		switch {
		case p.marker():
			if p.src[p.pos] == '-' {
				start = p.line
			}
			p.pos += 3
		case p.src[p.pos] == '%' && p.pos == p.bol:
			p.directive()
		}
		clear(p.anchors)
		if root := p.root(); root != nil && !p.failed {
			p.file.Documents = append(p.file.Documents, root)
			p.file.Starts = append(p.file.Starts, start)
		}
		if p.failed {
			return
		}
	}
}

// directive skips a %YAML line.
func (p *parser) directive() {
	if !strings.HasPrefix(p.src[p.pos:], "%YAML ") {
		p.fail(p.pos, "a directive other than %YAML", "remove the line")
		return
	}
	p.toLineEnd()
}

// root reads one document's root: nil when it is empty.
func (p *parser) root() *Node {
	p.skip()
	if p.eof() {
		return nil
	}
	if !p.first() || !p.keyAhead() {
		n := p.value(-1, false)
		p.skip()
		if !p.eof() {
			p.fail(p.pos, "text after the end of the document's value", "")
		}
		return n
	}
	return p.topMapping()
}

// topMapping reads the root's entries one by one and goes on after a bad one.
func (p *parser) topMapping() *Node {
	n := p.node(Mapping, Block)
	col := p.pos - p.bol
	for {
		whole := len(n.Pairs)
		p.pair(n, col)
		if !p.failed && p.another(col) {
			continue
		}
		n.End = p.pos
		if p.failed {
			n.Pairs = n.Pairs[:min(whole, len(n.Pairs))]
		}
		if !p.failed {
			if !p.eof() {
				p.fail(p.pos, "indentation that fits no entry above", "entries of one map start in the same column")
				continue
			}
			return n
		}
		if !p.resume() {
			return n
		}
	}
}

// resume moves to the next line that starts an entry of the outermost map after a mistake; false when there is none.
func (p *parser) resume() bool {
	if len(p.errs) >= p.opt.Errors {
		return false
	}
	p.pos = p.failAt
	p.bol = strings.LastIndexByte(p.src[:p.pos], '\n') + 1
	p.line = strings.Count(p.src[:p.bol], "\n") + 1
	p.depth = 0
	p.failed = false
	for {
		p.toLineEnd()
		if p.pos >= len(p.src) {
			p.failed = true
			return false
		}
		p.newline()
		if p.pos < len(p.src) && !strings.ContainsRune(" \t\r\n#-]}", rune(p.src[p.pos])) && p.keyAhead() {
			return true
		}
	}
}

// value reads what follows a colon, a dash or the start of a document. parent is the column of the map or list that holds it
// (-1: none); inMap allows a list in the column of its key.
func (p *parser) value(parent int, inMap bool) *Node {
	line, root, anchor := p.line, parent < 0, ""
	start, col := p.pos, p.column()
	empty := func() *Node {
		p.nodes++
		return &Node{Line: line, Col: col, Offset: start, End: start}
	}
	p.skip()
	if !p.placed(parent, inMap, line) {
		return empty()
	}
	if p.src[p.pos] == '&' {
		if anchor = p.name("anchor"); p.failed {
			return empty()
		}
		p.anchors[anchor] = nil
		at := p.line
		p.skip()
		if !p.placed(parent, inMap, line) {
			n := empty()
			n.Anchor, p.anchors[anchor] = anchor, n
			return n
		}
		if at == p.line && !root && p.keyAhead() {
			p.fail(p.pos, "an anchor before a key", "write the anchor at the end of the line before")
			return empty()
		}
	}
	p.depth++
	if p.depth > p.opt.Depth {
		p.fail(p.pos, fmt.Sprintf("more than %d levels", p.opt.Depth), "")
		return empty()
	}
	n := p.content(parent, inMap && line == p.line && !root)
	p.depth--
	if anchor != "" {
		n.Anchor = anchor
		p.anchors[anchor] = n
	}
	return n
}

// placed reports whether the next token belongs to a value of the collection at column parent.
func (p *parser) placed(parent int, inMap bool, line int) bool {
	if p.eof() {
		return false
	}
	if p.line == line {
		return true
	}
	col := p.pos - p.bol
	if strings.ContainsRune(p.src[p.bol:p.pos], '\t') {
		if strings.HasPrefix(p.src[p.pos:], "{") || strings.HasPrefix(p.src[p.pos:], "[") {
			return col > parent
		}
		p.fail(p.bol+strings.IndexByte(p.src[p.bol:p.pos], '\t'), "a tab as indentation", "indent with spaces")
		return false
	}
	return col > parent || inMap && col == parent && p.dash()
}

// content reads the node at pos. afterKey: it stands on the line of its key.
func (p *parser) content(parent int, afterKey bool) *Node {
	switch c := p.src[p.pos]; {
	case p.dash():
		if afterKey {
			p.fail(p.pos, "a list item on the line of its key", "start the list on the next line, or write [a, b]")
		}
		return p.sequence(p.pos - p.bol)
	case c == '[' || c == '{':
		n := p.flow(parent)
		p.blanks()
		if p.colon() {
			p.fail(n.Offset, "a key that is a map or a list", "a { or [ that belongs to the text needs quotes")
		}
		return n
	case c == '|' || c == '>':
		return p.blockScalar(parent)
	case c == '*':
		return p.alias()
	case p.keyAhead():
		if afterKey {
			p.fail(p.keyColon(), "a second colon on the line", "text with ': ' in it needs quotes; a map on one line needs braces")
		}
		return p.mapping(p.pos - p.bol)
	case c == '"' || c == '\'':
		return p.quoted(parent)
	case p.indicator(c):
		return p.node(Scalar, Plain)
	}
	return p.plain(parent)
}

// indicator refuses characters that no plain scalar starts with.
func (p *parser) indicator(c byte) bool {
	switch {
	case c == '!':
		p.fail(p.pos, "a tag", "tags are not used in policy files; quote the text if it starts with !")
	case c == '@' || c == '`' || c == '%' || c == ',' || c == ']' || c == '}' || c == '#':
		p.fail(p.pos, fmt.Sprintf("a value cannot start with %q", c), "quote it")
	case c == '?' && p.blankAt(p.pos+1):
		p.fail(p.pos, "a key written with ?", "write key: value")
	case c == ':' && p.blankAt(p.pos+1):
		p.fail(p.pos, "a colon without a key", "")
	case c == '&':
		p.fail(p.pos, "a second anchor", "")
	default:
		return false
	}
	return true
}

// mapping reads the block map whose keys stand in column col.
func (p *parser) mapping(col int) *Node {
	n := p.node(Mapping, Block)
	for {
		p.pair(n, col)
		if p.failed || !p.another(col) {
			return n
		}
	}
}

// pair reads one entry of a block map.
func (p *parser) pair(n *Node, col int) {
	if !p.keyAhead() {
		p.fail(p.pos, "expected key: value", "a colon and a space part a key from its value")
		return
	}
	key := p.key()
	p.blanks()
	p.pos++
	val := p.value(col, true)
	n.Pairs = append(n.Pairs, Pair{Key: key, Value: val})
	n.End = val.End
	p.lineDone()
}

// another moves to the next token and reports whether it starts a further entry in column col.
func (p *parser) another(col int) bool {
	p.skip()
	if p.eof() {
		return false
	}
	at := p.pos - p.bol
	if tab := strings.IndexByte(p.src[p.bol:p.pos], '\t'); tab >= 0 {
		p.fail(p.bol+tab, "a tab as indentation", "indent with spaces")
		return false
	}
	if at > col {
		p.fail(p.pos, "indentation deeper than the entries above", "entries of one map or list start in the same column")
		return false
	}
	return at == col
}

// sequence reads the block list whose dashes stand in column col.
func (p *parser) sequence(col int) *Node {
	n := p.node(Sequence, Block)
	for {
		if p.failed {
			return n
		}
		if p.opt.Comments {
			n.Dashes = append(n.Dashes, p.line)
		}
		p.pos++
		item := p.value(col, false)
		n.Items = append(n.Items, item)
		n.End = item.End
		p.lineDone()
		if p.failed || !p.another(col) || !p.dash() {
			return n
		}
	}
}

// lineDone refuses text after a value on the value's last line.
func (p *parser) lineDone() {
	p.bounded()
	p.skip()
	if p.failed || p.eof() || p.first() {
		return
	}
	p.fail(p.pos, "text after the end of the value", "quote a text that holds quotes, brackets or commas")
}

// alias reads *name.
func (p *parser) alias() *Node {
	n := p.node(Alias, Plain)
	at := p.pos
	name := p.name("alias")
	n.End, n.Value = p.pos, name
	target, known := p.anchors[name]
	switch {
	case p.failed:
	case !known:
		p.fail(at, "alias *"+name+" without an anchor &"+name+" above it", "")
	case target == nil:
		p.fail(at, "alias *"+name+" inside its own anchor", "")
	}
	n.Target = target
	if target == nil {
		n.Kind = Scalar
	}
	return n
}

// name reads the name behind & or *.
func (p *parser) name(what string) string {
	start := p.pos + 1
	p.pos = start
	for p.pos < len(p.src) && !p.blankAt(p.pos) && !strings.ContainsRune(",[]{}", rune(p.src[p.pos])) {
		p.pos++
	}
	if p.pos == start {
		p.fail(start-1, "an "+what+" without a name", "quote the text if it starts with & or *")
		return ""
	}
	return p.src[start:p.pos]
}
