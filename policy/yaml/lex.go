package yaml

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// node makes a node that starts at pos.
func (p *parser) node(kind Kind, style Style) *Node {
	p.nodes++
	return &Node{Kind: kind, Style: style, Line: p.line, Col: p.column(), Offset: p.pos, End: p.pos}
}

// bounded refuses more values than the options allow. Entries call it, so that no more than a few values pass the bound.
func (p *parser) bounded() {
	if p.nodes > p.opt.Nodes {
		p.fail(min(p.pos, len(p.src)), fmt.Sprintf("more than %d values", p.opt.Nodes), "")
	}
}

// column counts the characters before pos on its line, from 1.
func (p *parser) column() int {
	if p.failed {
		return 1
	}
	if p.colBol != p.bol || p.colPos > p.pos || p.col == 0 {
		p.colBol, p.colPos, p.col = p.bol, p.bol, 1
	}
	p.col += utf8.RuneCountInString(p.src[p.colPos:p.pos])
	p.colPos = p.pos
	return p.col
}

// blankAt reports whether a blank, a line end or the end of the text is at offset i.
func (p *parser) blankAt(i int) bool {
	return i >= len(p.src) || p.src[i] == ' ' || p.src[i] == '\n' || p.src[i] == '\t' || p.src[i] == '\r'
}

func (p *parser) newline() {
	p.pos++
	p.line++
	p.bol = p.pos
}

// toLineEnd moves to the line feed that ends this line, or to the end of the text.
func (p *parser) toLineEnd() {
	if i := strings.IndexByte(p.src[p.pos:], '\n'); i >= 0 {
		p.pos += i
		return
	}
	p.pos = len(p.src)
}

// blanks moves over blanks on this line.
func (p *parser) blanks() {
	for p.pos < len(p.src) && (p.src[p.pos] == ' ' || p.src[p.pos] == '\t') {
		p.pos++
	}
}

// skip moves to the next token, over blanks, line ends and comments.
func (p *parser) skip() {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			p.pos++
		case c == '\n':
			p.newline()
		case c == '#' && (p.pos == p.bol || p.blankAt(p.pos-1)):
			p.comment()
		default:
			return
		}
	}
}

func (p *parser) comment() {
	start := p.pos
	own := p.first()
	p.toLineEnd()
	if p.opt.Comments {
		p.file.Comments = append(p.file.Comments, Comment{
			Line: p.line, Offset: start, Text: strings.TrimRight(p.src[start:p.pos], " \t\r"), Own: own,
		})
	}
}

// first reports whether nothing but blanks stands before pos on its line.
func (p *parser) first() bool {
	return strings.Trim(p.src[p.bol:p.pos], " \t") == ""
}

// marker reports whether a document marker, --- or ..., is at pos.
func (p *parser) marker() bool {
	if p.pos != p.bol || p.pos+3 > len(p.src) {
		return false
	}
	mark := p.src[p.pos : p.pos+3]
	return (mark == "---" || mark == "...") && p.blankAt(p.pos+3)
}

// eof reports whether the document ends at pos.
func (p *parser) eof() bool { return p.failed || p.pos >= len(p.src) || p.marker() }

// dash reports whether a list item starts at pos.
func (p *parser) dash() bool {
	return p.pos < len(p.src) && p.src[p.pos] == '-' && p.blankAt(p.pos+1) && !p.marker()
}

// colon reports whether the colon that ends a key is at pos.
func (p *parser) colon() bool {
	return p.pos < len(p.src) && p.src[p.pos] == ':' && p.blankAt(p.pos+1)
}

// keyAhead reports whether `key:` starts at pos, on this line.
func (p *parser) keyAhead() bool { return p.keyColon() >= 0 }

// keyColon returns the offset of the colon behind the key at pos, -1 when there is none on this line.
func (p *parser) keyColon() int {
	if p.pos >= len(p.src) {
		return -1
	}
	i := p.pos
	switch c := p.src[i]; {
	case c == '"' || c == '\'':
		if i = p.quoteEnd(i); i < 0 {
			return -1
		}
		for i < len(p.src) && (p.src[i] == ' ' || p.src[i] == '\t') {
			i++
		}
		if i < len(p.src) && p.src[i] == ':' && p.blankAt(i+1) {
			return i
		}
		return -1
	case strings.IndexByte("[]{},#&*!|>%@`", c) >= 0, (c == '?' || c == '-' || c == ':') && p.blankAt(i+1):
		return -1
	}
	for ; i < len(p.src) && p.src[i] != '\n'; i++ {
		switch p.src[i] {
		case ':':
			if p.blankAt(i + 1) {
				return i
			}
		case '#':
			if p.blankAt(i - 1) {
				return -1
			}
		}
	}
	return -1
}

// quoteEnd returns the offset behind the quoted text at i if it ends on this line, else -1.
func (p *parser) quoteEnd(i int) int {
	quote := p.src[i]
	for i++; i < len(p.src) && p.src[i] != '\n'; i++ {
		switch {
		case p.src[i] == '\\' && quote == '"':
			if i++; i < len(p.src) && p.src[i] == '\n' {
				return -1
			}
		case p.src[i] == quote:
			if quote == '\'' && i+1 < len(p.src) && p.src[i+1] == quote {
				i++
				continue
			}
			return i + 1
		}
	}
	return -1
}
