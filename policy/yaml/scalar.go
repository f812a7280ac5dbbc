package yaml

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// key reads the scalar in front of a colon; keyAhead has seen both.
func (p *parser) key() *Node {
	if c := p.src[p.pos]; c == '"' || c == '\'' {
		return p.quoted(-1)
	}
	n := p.node(Scalar, Plain)
	end := p.keyColon()
	n.Value = strings.TrimRight(p.src[p.pos:end], " \t")
	n.End = p.pos + len(n.Value)
	p.pos = end
	return n
}

// plain reads a scalar without quotes in block context, over several lines if they are indented further than parent.
func (p *parser) plain(parent int) *Node {
	n := p.node(Scalar, Plain)
	n.Value = p.plainLine()
	n.End = p.pos
	if !p.plainGoesOn(parent) {
		return n
	}
	var b strings.Builder
	b.WriteString(n.Value)
	for p.plainGoesOn(parent) {
		gap := p.line
		p.skip()
		if p.keyAhead() {
			p.fail(n.Offset, "expected key: value", "a colon is missing here, or the next line is indented too far")
			return n
		}
		// One line end becomes a space, each empty line a line feed.
		if p.line == gap+1 {
			b.WriteByte(' ')
		}
		b.WriteString(strings.Repeat("\n", p.line-gap-1))
		b.WriteString(p.plainLine())
		n.End = p.pos
	}
	n.Value = b.String()
	return n
}

// plainLine reads to the end of the scalar on this line.
func (p *parser) plainLine() string {
	start := p.pos
	for p.pos < len(p.src) && p.src[p.pos] != '\n' && (p.src[p.pos] != '#' || !p.blankAt(p.pos-1)) {
		p.pos++
	}
	text := strings.TrimRight(p.src[start:p.pos], " \t\r")
	p.pos = start + len(text)
	return text
}

// plainGoesOn reports whether the next line with text in it continues a plain scalar.
func (p *parser) plainGoesOn(parent int) bool {
	rest := p.src[p.pos:]
	text := strings.TrimLeft(rest, " \t\r\n")
	gap := rest[:len(rest)-len(text)]
	bol := strings.LastIndexByte(gap, '\n')
	if bol < 0 || text == "" || text[0] == '#' {
		return false
	}
	indent := gap[bol+1:]
	if strings.TrimLeft(indent, " ") != "" {
		return false
	}
	if indent == "" && (strings.HasPrefix(text, "---") || strings.HasPrefix(text, "...")) {
		return false
	}
	return len(indent) > parent
}

// quoted reads 'text' or "text", over several lines if they are indented further than parent.
func (p *parser) quoted(parent int) *Node {
	quote := p.src[p.pos]
	style := Double
	if quote == '\'' {
		style = Single
	}
	n := p.node(Scalar, style)
	if end := p.quoteEnd(p.pos); end > 0 {
		n.Value = p.unquote(n.Offset+1, end-1, quote)
		if !p.failed {
			p.pos = end
		}
		n.End = end
		return n
	}
	p.pos++
	var lines []string
	start := p.pos
	for {
		p.toQuoteOrLineEnd(quote)
		if p.pos >= len(p.src) {
			p.fail(n.Offset, "a quote that is never closed", "")
			return n
		}
		text := p.unquote(start, p.pos, quote)
		if p.failed {
			return n
		}
		lines = append(lines, text)
		if p.src[p.pos] == quote {
			p.pos++
			break
		}
		p.newline()
		p.blanks()
		start = p.pos
		if p.pos < len(p.src) && p.src[p.pos] != '\n' && (p.pos-p.bol <= parent || p.marker()) {
			p.fail(n.Offset, "a quote that is not closed on its line", "close it, or indent the lines that belong to it")
			return n
		}
	}
	n.Value, n.End = joinQuoted(lines, quote), p.pos
	return n
}

// toQuoteOrLineEnd moves to the closing quote or to the line's end.
func (p *parser) toQuoteOrLineEnd(quote byte) {
	for p.pos < len(p.src) && p.src[p.pos] != '\n' {
		switch {
		case p.src[p.pos] == '\\' && quote == '"' && p.pos+1 < len(p.src) && p.src[p.pos+1] != '\n':
			p.pos++
		case p.src[p.pos] == quote:
			if quote != '\'' || p.pos+1 >= len(p.src) || p.src[p.pos+1] != quote {
				return
			}
			p.pos++
		}
		p.pos++
	}
}

// joinQuoted folds the lines of a quoted scalar; an escaped line end joins without a space.
func joinQuoted(lines []string, quote byte) string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(lines[0], " \t\r"))
	empty, glued := 0, false
	if quote == '"' {
		glued = strings.HasSuffix(strings.TrimRight(lines[0], "\r"), "\x00")
	}
	for i, l := range lines[1:] {
		last := i == len(lines)-2
		text := l
		if !last {
			text = strings.TrimRight(l, " \t\r")
		}
		if text == "" && !last {
			empty++
			continue
		}
		switch {
		case empty > 0:
			b.WriteString(strings.Repeat("\n", empty))
		case !glued:
			b.WriteByte(' ')
		}
		b.WriteString(text)
		empty, glued = 0, strings.HasSuffix(text, "\x00")
	}
	return strings.ReplaceAll(b.String(), "\x00", "")
}

// unquote undoes the escapes of src[from:to]. A backslash before the line's end becomes a NUL, which no text holds otherwise.
func (p *parser) unquote(from, to int, quote byte) string {
	text := p.src[from:to]
	if quote == '\'' {
		return strings.ReplaceAll(text, "''", "'")
	}
	if strings.IndexByte(text, '\\') < 0 {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		if rest := strings.TrimRight(text[i+1:], "\r"); rest == "" {
			b.WriteByte(0)
			return b.String()
		}
		n := p.escape(&b, text[i+1:])
		if n == 0 {
			p.fail(from+i, "an escape that is not known", `write a backslash as \\, or use single quotes`)
			return ""
		}
		i += n
	}
	return b.String()
}

// escape writes what the escape behind a backslash stands for and returns its length, 0 when it is none.
func (p *parser) escape(b *strings.Builder, s string) int {
	const from, to = `abtnvfre "/\N_LP`, "\a\b\t\n\v\f\r\x1b \"/\\\u0085\u00a0\u2028\u2029"
	if i := strings.IndexByte(from, s[0]); i >= 0 {
		b.WriteRune([]rune(to)[i])
		return 1
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]
	if digits == 0 || len(s) < 1+digits {
		return 0
	}
	v, err := strconv.ParseUint(s[1:1+digits], 16, 32)
	if err != nil || v == 0 || !utf8.ValidRune(rune(v)) {
		return 0
	}
	b.WriteRune(rune(v))
	return 1 + digits
}

// blockScalar reads | and > texts.
func (p *parser) blockScalar(parent int) *Node {
	style := Literal
	if p.src[p.pos] == '>' {
		style = Folded
	}
	n := p.node(Scalar, style)
	p.pos++
	chomp, indent := byte(0), 0
	for p.pos < len(p.src) && !p.blankAt(p.pos) {
		switch c := p.src[p.pos]; {
		case (c == '+' || c == '-') && chomp == 0:
			chomp = c
		case c >= '1' && c <= '9' && indent == 0:
			indent = max(parent, 0) + int(c-'0')
		default:
			p.fail(p.pos, "text behind | or >", "the text starts on the next line")
			return n
		}
		p.pos++
	}
	p.blanks()
	if p.pos < len(p.src) && p.src[p.pos] == '#' {
		p.comment()
	}
	if p.pos < len(p.src) && p.src[p.pos] == '\r' {
		p.pos++
	}
	if p.pos < len(p.src) && p.src[p.pos] != '\n' {
		p.fail(p.pos, "text behind | or >", "the text starts on the next line")
		return n
	}
	lines := p.blockLines(parent, indent)
	n.End = p.pos
	n.Value = chompText(lines, chomp, style == Folded)
	return n
}

// blockLines reads the lines of a block text and leaves pos at the line feed before the first line that is not its own.
func (p *parser) blockLines(parent, indent int) []string {
	var lines []string
	for p.pos < len(p.src) {
		end := len(p.src)
		if i := strings.IndexByte(p.src[p.pos+1:], '\n'); i >= 0 {
			end = p.pos + 1 + i
		}
		line := strings.TrimSuffix(p.src[p.pos+1:end], "\r")
		text := strings.TrimLeft(line, " ")
		lead := len(line) - len(text)
		switch {
		case text == "" && (indent == 0 || lead <= indent):
			if p.pos+1 >= len(p.src) {
				p.newline()
				return lines
			}
			lines = append(lines, "")
		case indent == 0 && lead <= parent || indent > 0 && lead < indent:
			return lines
		default:
			if indent == 0 {
				indent = max(lead, 1)
				if lead == 0 {
					indent = lead
				}
			}
			lines = append(lines, line[min(indent, len(line)):])
		}
		p.newline()
		p.pos = end
	}
	return lines
}

// chompText joins the lines of a block text and cuts or keeps the line feeds at its end.
func chompText(lines []string, chomp byte, folded bool) string {
	n := len(lines)
	for n > 0 && lines[n-1] == "" {
		n--
	}
	tail := len(lines) - n
	var b strings.Builder
	for i, l := range lines[:n] {
		b.WriteString(l)
		if i == n-1 {
			break
		}
		next := lines[i+1]
		plainBreak := folded && l != "" && l[0] != ' ' && l[0] != '\t'
		switch {
		case plainBreak && next != "" && next[0] != ' ' && next[0] != '\t':
			b.WriteByte(' ')
		case plainBreak && next == "":
		default:
			b.WriteByte('\n')
		}
	}
	if n > 0 && chomp != '-' {
		b.WriteByte('\n')
	}
	if chomp == '+' {
		b.WriteString(strings.Repeat("\n", tail))
	}
	return b.String()
}
