package policy

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Severity says whether a diagnostic stands in the way.
type Severity string

// The severities. Only errors make a fleet unusable.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic is one finding in what an operator wrote, with its place.
type Diagnostic struct {
	Severity Severity  `json:"severity"`
	Pos      Pos       `json:"pos"`
	Message  string    `json:"message"`
	Hint     string    `json:"hint,omitempty"`
	Line     string    `json:"line,omitempty"`  // the source line at Pos, without its line end; of a very long one the part around Pos
	Caret    int       `json:"caret,omitempty"` // the column of Pos in Line, from 1
	Other    []Related `json:"other,omitempty"` // the other places of a clash
}

// Related is a second place that a diagnostic speaks of.
type Related struct {
	Pos     Pos    `json:"pos"`
	Message string `json:"message"`
	Line    string `json:"line,omitempty"`
	Caret   int    `json:"caret,omitempty"`
}

// Diagnostics is every finding of one run, sorted by place.
type Diagnostics []Diagnostic

// HasErrors reports whether any finding is an error.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == SeverityError })
}

// Err returns nil when there are no errors, else an error that names the first one and counts the rest.
func (ds Diagnostics) Err() error {
	count := 0
	var first Diagnostic
	for _, d := range ds {
		if d.Severity == SeverityError {
			if count == 0 {
				first = d
			}
			count++
		}
	}
	switch count {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("check policy: %s: %s", first.Pos, first.Message)
	}
	return fmt.Errorf("check policy: %s: %s (and %d more)", first.Pos, first.Message, count-1)
}

// Render writes each finding as place, severity and message, the source line, a caret below its place, the hint, and the other
// places of a clash. It returns the first error of w.
func (ds Diagnostics) Render(w io.Writer) error {
	var b strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&b, "%s: %s: %s\n", d.Pos, d.Severity, d.Message)
		excerpt(&b, d.Line, d.Caret)
		if d.Hint != "" {
			fmt.Fprintf(&b, "  hint: %s\n", d.Hint)
		}
		for _, o := range d.Other {
			fmt.Fprintf(&b, "%s: %s\n", o.Pos, o.Message)
			excerpt(&b, o.Line, o.Caret)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String renders the findings.
func (ds Diagnostics) String() string {
	var b strings.Builder
	_ = ds.Render(&b) // a strings.Builder returns no error
	return b.String()
}

// excerptWidth is the most characters of a source line that Render shows.
const excerptWidth = 120

// excerpt writes a source line and a caret below column col (from 1); of a long line it writes the part around the column.
func excerpt(b *strings.Builder, line string, col int) {
	if line == "" {
		return
	}
	runes := []rune(strings.Map(visible, line))
	col = min(max(col, 1), len(runes)+1)
	from := 0
	if len(runes) > excerptWidth {
		from = min(max(col-excerptWidth/2, 0), len(runes)-excerptWidth)
		runes = runes[from : from+excerptWidth]
	}
	fmt.Fprintf(b, "    %s\n    %s^\n", strings.TrimRight(string(runes), " "), strings.Repeat(" ", col-1-from))
}

// visible replaces what would move a terminal's cursor or worse.
func visible(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
		return '?'
	}
	return r
}

// sortDiagnostics orders findings by place, errors first at one place, and removes doubles.
func sortDiagnostics(ds Diagnostics) Diagnostics {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(comparePos(a.Pos, b.Pos), cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(ds, func(a, b Diagnostic) bool {
		return a.Pos == b.Pos && a.Severity == b.Severity && a.Message == b.Message
	})
}

func comparePos(a, b Pos) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
}

// sources finds the source line of a place.
type sources map[string]*source

type source struct {
	text  string
	split sync.Once // fleets that share a file may be asked at the same time
	lines []int     // offset of each line's first byte, made when first asked for
}

// Bounds of what a diagnostic carries of its source line, in bytes: the whole line, else the part around its place, else nothing.
const (
	wholeLine   = 4096
	longestLine = 256 << 10
)

// line returns the source line of a place, or a part of it, and the column of the place in what it returns.
func (s sources) line(p Pos) (text string, caret int) {
	src := s[p.File]
	if src == nil || p.Line < 1 {
		return "", 0
	}
	src.split.Do(func() {
		src.lines = []int{0}
		for i := 0; i < len(src.text); i++ {
			if src.text[i] == '\n' {
				src.lines = append(src.lines, i+1)
			}
		}
	})
	if p.Line > len(src.lines) {
		return "", 0
	}
	text = src.text[src.lines[p.Line-1]:]
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if len(text) > longestLine {
		return "", 0
	}
	text = strings.TrimSuffix(text, "\r")
	if p.Line == 1 {
		text = strings.TrimPrefix(text, "\ufeff")
	}
	if len(text) <= wholeLine {
		return strings.ToValidUTF8(text, "?"), p.Col
	}
	runes := []rune(text)
	from := min(max(p.Col-excerptWidth, 0), len(runes))
	return string(runes[from:min(from+2*excerptWidth, len(runes))]), p.Col - from
}

// reporter collects findings.
type reporter struct {
	list    Diagnostics
	sources sources
}

// mostDiagnostics bounds what one run reports: behind a thousand mistakes stands one cause.
const mostDiagnostics = 1000

// full reports whether nothing more is taken.
func (r *reporter) full() bool { return len(r.list) >= mostDiagnostics }

func (r *reporter) add(sev Severity, pos Pos, hint, message string, other ...Related) {
	if r.full() {
		return
	}
	r.list = append(r.list, Diagnostic{Severity: sev, Pos: pos, Message: message, Hint: hint, Other: other})
}

func (r *reporter) errorf(pos Pos, hint, format string, args ...any) {
	if !r.full() {
		r.add(SeverityError, pos, hint, fmt.Sprintf(format, args...))
	}
}

func (r *reporter) warnf(pos Pos, hint, format string, args ...any) {
	if !r.full() {
		r.add(SeverityWarning, pos, hint, fmt.Sprintf(format, args...))
	}
}

// clash reports an error with the other place that it clashes with.
func (r *reporter) clash(pos, other Pos, otherMessage, hint, format string, args ...any) {
	if !r.full() {
		r.add(SeverityError, pos, hint, fmt.Sprintf(format, args...), Related{Pos: other, Message: otherMessage})
	}
}

// done sorts the findings and gives them their source lines.
func (r *reporter) done() Diagnostics {
	return r.sources.show(sortDiagnostics(r.list))
}

// show gives findings their source lines.
func (s sources) show(ds Diagnostics) Diagnostics {
	for i := range ds {
		d := &ds[i]
		d.Line, d.Caret = s.line(d.Pos)
		for j := range d.Other {
			d.Other[j].Line, d.Other[j].Caret = s.line(d.Other[j].Pos)
		}
	}
	return ds
}

// WithSource sorts findings that another package made of this fleet by place and gives them their source lines.
func (f *Fleet) WithSource(ds Diagnostics) Diagnostics {
	out := make(Diagnostics, len(ds))
	for i, d := range ds {
		d.Other = slices.Clone(d.Other)
		out[i] = d
	}
	return f.sources.show(sortDiagnostics(out))
}
