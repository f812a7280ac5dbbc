package yaml

// Kind says what a node is.
type Kind uint8

// The kinds of a node.
const (
	Scalar Kind = iota
	Mapping
	Sequence
	Alias
)

// Style says how a scalar, map or list is written.
type Style uint8

// The styles. Plain, Single, Double, Literal and Folded are a scalar's; Block and Flow a map's or a list's.
const (
	Plain Style = iota
	Single
	Double
	Literal
	Folded
	Block
	Flow
)

// Node is one value of a document.
type Node struct {
	Kind   Kind
	Style  Style
	Line   int // from 1
	Col    int // in characters, from 1
	Offset int // of the first byte, properties excluded
	End    int // offset after the last byte
	Value  string
	Pairs  []Pair  // a map's entries as written, doubles included
	Items  []*Node // a list's items
	Dashes []int   // a block list's lines with a dash, one for each item; kept with comments only
	Anchor string
	Target *Node // an alias' target, never one that holds the alias
}

// Pair is one entry of a map. The key is a scalar; the value of `key:` alone is a null scalar.
type Pair struct {
	Key   *Node
	Value *Node
}

// IsNull reports whether the node stands for no value: nothing at all, ~ or null without quotes.
func (n *Node) IsNull() bool {
	if n.Kind != Scalar || n.Style != Plain {
		return false
	}
	switch n.Value {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// Resolve returns the node itself, or an alias' target.
func (n *Node) Resolve() *Node {
	for n.Kind == Alias {
		n = n.Target
	}
	return n
}

// Comment is one comment, from its # to the end of its line.
type Comment struct {
	Line   int
	Offset int
	Text   string // with its #, without trailing blanks
	Own    bool   // nothing but blanks before it on its line
}

// File is what Parse found.
type File struct {
	Documents []*Node // one root each; empty documents are left out
	Comments  []Comment
	Starts    []int // line of each document's --- marker; 0: none
	Nodes     int   // values in all documents
}

// Error is one mistake of syntax.
type Error struct {
	Line    int // from 1
	Col     int // in characters, from 1
	Message string
	Hint    string
}

// Error writes the place and the message.
func (e *Error) Error() string { return e.Message }

// Options bound and widen what Parse does. The zero value has the limits named beside the fields and keeps no comments.
type Options struct {
	Comments bool
	Nodes    int // 0: 1 000 000
	Depth    int // 0: 32
	Errors   int // 0: 20
}
