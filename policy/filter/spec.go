package filter

// Ruleset is everything the kernel must hold, as data. Tables, sets and elements are sorted; chains stand after the chains that
// they jump to.
type Ruleset struct {
	Tables []Table
}

// Family is a netfilter family by nft's name.
type Family string

// The families in use.
const (
	Bridge Family = "bridge"
	Inet   Family = "inet"
)

// Names of the tables, wholly ours.
const (
	BridgeTable = "bladenet"
	HostTable   = "bladenet_host"
)

// Table is one table and all that is in it.
type Table struct {
	Family   Family
	Name     string
	Counters []string // named counters, one per reason, sorted
	Sets     []Set
	Chains   []Chain
}

// Set is a named set, or a verdict map when Map is set. Named only: anonymous sets of interface names list wrongly.
type Set struct {
	Name     string
	Key      []Field // concatenation; every field's type and width follow from it
	Map      bool    // elements carry a chain to go to
	Interval bool    // elements may span From to To in each field; only for concatenations
	Dynamic  bool    // filled by rules, with a counter per element; Elements is empty
	Metered  bool    // a dynamic set whose elements carry a limit and not a counter
	Size     int     // limit of a dynamic set
	Elements []Element
}

// Element is one key of a set. Keys are bytes as the kernel holds them, each field padded to four bytes, in a string so that
// elements compare and sort.
type Element struct {
	From string
	To   string // inclusive end in an interval set, else empty
	Goto string // chain, in a map
}

// Hook is where a base chain stands.
type Hook string

// The hooks in use.
const (
	Prerouting Hook = "prerouting"
	Forward    Hook = "forward"
	Input      Hook = "input"
	Output     Hook = "output"
)

// Chain is a base chain when Hook is set. Base chains accept what no rule ends: only what lies on our bridges or interfaces is
// judged, and for that the last rule drops.
type Chain struct {
	Name     string
	Hook     Hook
	Priority int
	Rules    []Rule
}

// Rule is a list of statements, done from left to right until one does not match.
type Rule struct {
	Comment    string // shown by nft, at most 120 bytes
	Statements []Statement
}

// Statement is one of Match, Lookup, Dispatch, Count, Hit, Meter, Limit, Notrack and Decide.
type Statement interface{ statement() }

// Match compares a field, after Mask when it is set, with Value. All are the field's width. For connection states Value is a
// mask of states of which one must hold.
type Match struct {
	Field Field
	Not   bool
	Mask  []byte
	Value []byte
}

// Lookup asks whether the concatenation of the fields is in (or, with Not, is not in) a set.
type Lookup struct {
	Fields []Field
	Not    bool
	Set    string
}

// Dispatch follows the verdict that a map holds for a field; a miss goes on.
type Dispatch struct {
	Field Field
	Map   string
}

// Count adds the packet to a named counter of the table, or to the rule's own when Counter is empty.
type Count struct {
	Counter string
}

// Hit adds the packet to the counter of the field's element in a dynamic set. A full set ends the rule: nothing may follow.
type Hit struct {
	Field Field
	Set   string
}

// Meter matches when the field's element in a metered set is over its limit: a rate of packets, or with Connections a number of
// connections that conntrack holds and that have not been closed. A full set ends the rule, so that nobody is held to a limit.
type Meter struct {
	Field       Field
	Set         string
	Rate        Limit
	Connections int
}

// Limit matches while fewer than PerSecond packets pass, with a burst on top.
type Limit struct {
	PerSecond int
	Burst     int
}

// Notrack keeps the packet away from conntrack.
type Notrack struct{}

// Decide ends the chain, or goes to another.
type Decide struct {
	Kind  VerdictKind
	Chain string
}

// VerdictKind is what a verdict does.
type VerdictKind string

// The kinds of verdict.
const (
	Accept VerdictKind = "accept"
	Drop   VerdictKind = "drop"
	Return VerdictKind = "return"
	Jump   VerdictKind = "jump"
	Goto   VerdictKind = "goto"
)

func (Match) statement()    {}
func (Lookup) statement()   {}
func (Dispatch) statement() {}
func (Count) statement()    {}
func (Hit) statement()      {}
func (Meter) statement()    {}
func (Limit) statement()    {}
func (Notrack) statement()  {}
func (Decide) statement()   {}
