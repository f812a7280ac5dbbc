package yaml

import (
	"strconv"
	"strings"
)

// Format writes a text in canonical style: two spaces of indentation, one space behind a colon, no blanks at line ends, at most
// one empty line in a row, double quotes where there were quotes, line feeds. Order, flow style that fits its line, anchors,
// block texts and every comment stay; flow style over several lines becomes block style. Formatting a formatted text changes
// nothing.
func Format(src string) (string, []*Error) {
	file, errs := Parse(src, Options{Comments: true})
	if len(errs) > 0 {
		return "", errs
	}
	p := &printer{src: src, comments: file.Comments}
	for i, root := range file.Documents {
		if i > 0 {
			p.flush(file.Starts[i], 0, 0)
			p.text("---\n")
			p.line, p.fresh = file.Starts[i], true
		}
		next := len(src) + 1
		if i+1 < len(file.Documents) {
			next = file.Starts[i+1]
		}
		p.root(root, next)
	}
	p.flush(len(src)+2, 0, 0)
	return p.b.String(), nil
}

// printer writes one text. Comments wait in the order of the text until what stands behind them is written.
type printer struct {
	b        strings.Builder
	src      string
	comments []Comment
	line     int  // last line of the source that is written
	fresh    bool // at the start of a document: no empty line yet
}

func (p *printer) text(s string) { p.b.WriteString(s) }

func (p *printer) indent(n int) { p.text(strings.Repeat(" ", n)) }

// gap keeps an empty line before source line n.
func (p *printer) gap(n int) {
	if p.line > 0 && n > p.line+1 && !p.fresh {
		p.text("\n")
	}
	p.line = max(p.line, n)
	p.fresh = false
}

// flush writes the comments above source line n, each on a line of its own, as far as they stand in column col (from 0) or
// further right.
func (p *printer) flush(n, col, indent int) {
	for len(p.comments) > 0 && p.comments[0].Line < n {
		c := p.comments[0]
		bol := strings.LastIndexByte(p.src[:c.Offset], '\n') + 1
		if c.Own && c.Offset-bol < col {
			return
		}
		p.comments = p.comments[1:]
		p.gap(c.Line)
		p.indent(indent)
		p.text(c.Text + "\n")
	}
}

// endLine ends a line of the result that stands for the source up to line n, with the first comment of those lines; further
// ones follow on lines of their own.
func (p *printer) endLine(n, indent int) {
	if len(p.comments) > 0 && p.comments[0].Line <= n {
		p.text("  " + p.comments[0].Text)
		p.comments = p.comments[1:]
	}
	p.text("\n")
	p.line = max(p.line, n)
	p.flush(n+1, 0, indent)
}

func (p *printer) root(n *Node, next int) {
	if p.inline(n) {
		p.flush(n.Line, 0, 0)
		p.gap(n.Line)
		p.text(p.anchor(n) + p.oneLine(n))
		p.endLine(p.lastLine(n), 0)
		return
	}
	if n.Anchor != "" {
		p.flush(n.Line, 0, 0)
		p.text("--- &" + n.Anchor + "\n")
	}
	p.block(n, frame{next: next, outer: -1})
}

// frame is where a map or list over several lines is written.
type frame struct {
	indent int
	next   int  // line of what follows in the source
	outer  int  // column of the map or list around it in the source; -1: none
	begun  bool // its first entry goes on on a line that is already begun
}

// block writes a map or list over several lines.
func (p *printer) block(n *Node, f frame) {
	col := f.outer
	if n.Style == Block {
		col = n.Offset - strings.LastIndexByte(p.src[:n.Offset], '\n') - 1
	}
	for i, pair := range n.Pairs {
		sub := frame{indent: f.indent, next: f.next, outer: col}
		if i+1 < len(n.Pairs) {
			sub.next = n.Pairs[i+1].Key.Line
		}
		p.begin(pair.Key.Line, f.indent, f.begun && i == 0)
		p.text(key(pair.Key) + ":")
		p.value(pair.Value, sub, pair.Key.Line)
	}
	for i, item := range n.Items {
		sub, line := frame{indent: f.indent, next: f.next, outer: col}, item.Line
		if n.Style == Block {
			line = n.Dashes[i]
		}
		if i+1 < len(n.Items) {
			sub.next = n.Items[i+1].Line
			if n.Style == Block {
				sub.next = n.Dashes[i+1]
			}
		}
		p.begin(line, f.indent, f.begun && i == 0)
		p.text("-")
		if !p.inline(item) && item.Anchor == "" && item.Style == Block && line == item.Line {
			p.text(" ")
			sub.indent, sub.begun = f.indent+2, true
			p.block(item, sub)
			continue
		}
		p.value(item, sub, line)
	}
	if n.Style == Flow {
		p.flush(p.lastLine(n)+1, 0, f.indent)
		p.line = max(p.line, p.lastLine(n))
		return
	}
	p.flush(f.next, max(col, f.outer+1), f.indent)
}

// begin starts the line of an entry that stands on source line n.
func (p *printer) begin(n, indent int, begun bool) {
	if begun {
		p.line = max(p.line, n)
		return
	}
	p.flush(n, 0, indent)
	p.gap(n)
	p.indent(indent)
}

// value writes what stands behind a key or a dash of source line line.
func (p *printer) value(n *Node, f frame, line int) {
	if a := p.anchor(n); a != "" {
		p.text(" " + strings.TrimSuffix(a, " "))
	}
	switch {
	case n.Kind == Scalar && (n.Style == Literal || n.Style == Folded):
		p.blockText(n, f.indent+2)
	case p.inline(n):
		if s := p.oneLine(n); s != "" {
			p.text(" " + s)
		}
		p.endLine(max(line, p.lastLine(n)), f.indent)
	default:
		f.indent += 2
		if n.Style == Flow && startsOn(n, line) {
			p.text("\n")
		} else {
			p.endLine(line, f.indent)
		}
		p.block(n, f)
	}
}

// startsOn reports whether the first entry of a flow node stands on source line n: a comment there is that entry's.
func startsOn(n *Node, line int) bool {
	if len(n.Pairs) > 0 {
		return n.Pairs[0].Key.Line == line
	}
	return n.Items[0].Line == line
}

func (p *printer) anchor(n *Node) string {
	if n.Anchor == "" {
		return ""
	}
	return "&" + n.Anchor + " "
}

// lastLine is the source line that a node ends on.
func (p *printer) lastLine(n *Node) int {
	return n.Line + strings.Count(p.src[n.Offset:max(n.End, n.Offset)], "\n")
}

// inline reports whether a node is written on one line.
func (p *printer) inline(n *Node) bool {
	switch n.Kind {
	case Mapping, Sequence:
		return len(n.Pairs)+len(n.Items) == 0 || n.Style == Flow && p.lastLine(n) == n.Line
	}
	return true
}

// oneLine writes a node in flow style.
func (p *printer) oneLine(n *Node) string {
	var list []string
	switch n.Kind {
	case Alias:
		return "*" + n.Value
	case Mapping:
		for _, pair := range n.Pairs {
			list = append(list, strings.TrimRight(key(pair.Key)+": "+p.anchor(pair.Value)+p.oneLine(pair.Value), " "))
		}
		return "{" + strings.Join(list, ", ") + "}"
	case Sequence:
		for _, item := range n.Items {
			list = append(list, p.anchor(item)+p.oneLine(item))
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	if n.Style == Plain && !strings.Contains(n.Value, "\n") {
		return n.Value
	}
	return strconv.Quote(n.Value)
}

// key writes a key, without quotes when it is a plain word.
func key(n *Node) string {
	if n.Style == Plain {
		return n.Value
	}
	for _, c := range []byte(n.Value) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return strconv.Quote(n.Value)
		}
	}
	if n.Value == "" || n.Value[0] == '-' {
		return strconv.Quote(n.Value)
	}
	return n.Value
}

// blockText writes a block text's lines as they are, at another indentation.
func (p *printer) blockText(n *Node, indent int) {
	raw := p.src[n.Offset:n.End]
	head, body, _ := strings.Cut(raw, "\n")
	mark, _, _ := strings.Cut(head, "#")
	mark = strings.TrimSpace(mark)
	lines := strings.Split(strings.ReplaceAll(body, "\r", ""), "\n")
	lead := -1
	for _, l := range lines {
		if t := strings.TrimLeft(l, " "); t != "" {
			lead = len(l) - len(t)
			break
		}
	}
	if lead < 0 || strings.ContainsAny(mark, "123456789") || strings.ContainsAny(n.Value, "\u0085\u2028\u2029") {
		p.text(" " + strconv.Quote(n.Value))
		p.endLine(n.Line, indent)
		p.line = max(p.line, p.lastLine(n))
		return
	}
	p.text(" " + mark)
	if len(p.comments) > 0 && p.comments[0].Line == n.Line {
		p.text("  " + p.comments[0].Text)
		p.comments = p.comments[1:]
	}
	p.text("\n")
	for strings.TrimLeft(lines[len(lines)-1], " ") == "" {
		lines = lines[:len(lines)-1]
	}
	if strings.Contains(mark, "+") {
		text := strings.TrimRight(n.Value, "\n")
		lines = append(lines, make([]string, max(len(n.Value)-len(text)-1, 0))...)
	}
	for _, l := range lines {
		if len(l) > lead {
			p.indent(indent)
			p.text(l[lead:])
		}
		p.text("\n")
	}
	p.line = max(p.line, p.lastLine(n))
}
