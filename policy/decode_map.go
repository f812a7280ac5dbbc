package policy

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/bladenet/bladenet/policy/yaml"
)

// shape is a document struct's keys, in the order of its fields.
type shape struct {
	names    []string
	fields   []shapeField
	required int
}

type shapeField struct {
	index    int
	required bool
	tag      reflect.StructTag
}

// shape returns a type's keys and remembers them: tens of thousands of entries have the same type.
func (d *decoder) shape(t reflect.Type) *shape {
	s := d.shapes[t]
	if s == nil {
		s = shapeOf(t)
		d.shapes[t] = s
	}
	return s
}

// shapeOf reads a type's tags.
func shapeOf(t reflect.Type) *shape {
	s := &shape{}
	for i := range t.NumField() {
		name, option, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		s.names = append(s.names, name)
		s.fields = append(s.fields, shapeField{index: i, required: option == "required", tag: t.Field(i).Tag})
		if option == "required" {
			s.required++
		}
	}
	return s
}

// bounds returns the least and the most of an integer field.
func (f field) bounds() (least, most int64) {
	least, _ = strconv.ParseInt(f.tag.Get("min"), 10, 64)
	most, _ = strconv.ParseInt(f.tag.Get("max"), 10, 64)
	return least, most
}

// kindOf names one entry of a map for messages.
var kindOf = map[string]string{
	"networks": "network", "blades": "blade", "services": "service", "directors": "director", "realservers": "real server",
	"rules": "rule", "hosts": "host rule", "serves": "service", "volumes": "volume", "alerts": "alert", "expect": "expectation",
}

// decodeNode appends a map's entries, in the order of the file, and reports names given twice.
func (e *entries[K, T]) decodeNode(d *decoder, n *yaml.Node, f field) {
	n, leave := d.follow(n)
	defer leave()
	if d.spent(n) {
		return
	}
	if n.Kind != yaml.Mapping {
		if !n.IsNull() {
			d.errorf(d.pos(n), "name: {...}", "%s must be a map of names, not %s", describe(f), kindName(n))
		}
		return
	}
	kind := kindOf[f.name]
	if e.index == nil {
		e.index = make(map[K]int, len(n.Pairs))
	}
	for _, pair := range d.pairs(n) {
		if d.full() {
			return
		}
		e.decodeEntry(d, pair, kind)
	}
}

func (e *entries[K, T]) decodeEntry(d *decoder, pair yaml.Pair, kind string) {
	place := d.pos(pair.Key)
	var name K
	if p := label(&name, pair.Key.Value); p != nil {
		d.errorf(place, p.hint, "%s: %s", kind, p.message)
	}
	if i, ok := e.index[name]; ok {
		d.clash(place, e.list[i].Pos, "first written here", "names are unique over all files", "%s %s twice", kind, name)
		return
	}
	x := entry[K, T]{Name: name, Pos: place}
	f := field{owner: owner{kind: kind, name: pair.Key.Value, pos: place}}
	v := reflect.ValueOf(&x.Value).Elem()
	if pair.Value.Resolve().IsNull() && !d.canBeEmpty(v.Type()) {
		shape := d.shape(v.Type())
		d.errorf(place, "keys: "+strings.Join(shape.names, ", "), "%s %s is empty", kind, name)
	} else {
		d.into(pair.Value, v, f)
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, x)
}

func (*entries[K, T]) emptyAllowed() {}

// decodeNode reads none, or one of ospf, bgp and vrrp.
func (a *announceDoc) decodeNode(d *decoder, n *yaml.Node, f field) {
	target, leave := d.follow(n)
	defer leave()
	if d.spent(n) {
		return
	}
	a.Pos = d.pos(n)
	if target.Kind == yaml.Scalar && target.Value == "none" {
		return
	}
	if target.Kind != yaml.Mapping {
		a.unclear = true
		d.errorf(d.pos(n), "none, {ospf: {...}}, {bgp: {...}} or {vrrp: {...}}", "%s must be none or a map, not %s", describe(f), kindName(target))
		return
	}
	d.structure(target, reflect.ValueOf(a).Elem(), f)
}

// decodeNode reads true, false, or interval and multiplier.
func (b *bfdDoc) decodeNode(d *decoder, n *yaml.Node, f field) {
	target, leave := d.follow(n)
	defer leave()
	if d.spent(n) {
		return
	}
	b.Pos = d.pos(n)
	if target.Kind == yaml.Mapping {
		b.on = true
		d.structure(target, reflect.ValueOf(b).Elem(), f)
		return
	}
	var on at[bool]
	on.decodeNode(d, n, f)
	b.on = on.V
}

// decodeNode reads [whom, what].
func (t *targetDoc) decodeNode(d *decoder, n *yaml.Node, f field) {
	target, leave := d.follow(n)
	defer leave()
	if d.spent(n) {
		return
	}
	if target.Kind != yaml.Sequence || len(target.Items) != 2 {
		d.errorf(d.pos(n), "as [www-l1, 22/tcp] or [192.0.2.1, icmp]", "%s must be a list of two: whom, and port or icmp", describe(f))
		return
	}
	t.To.decodeNode(d, target.Items[0], f)
	t.Port.decodeNode(d, target.Items[1], f)
}

// firstSentence cuts a doc tag for a hint.
func firstSentence(doc string) string {
	if i := strings.Index(doc, ". "); i >= 0 {
		return doc[:i]
	}
	return strings.TrimSuffix(doc, ".")
}

// longestWord bounds the words that are compared, in bytes.
const longestWord = 64

// nearest returns the candidate that a mistyped word most likely meant, or nothing.
func nearest(word string, candidates []string) string {
	if len(word) > longestWord {
		return ""
	}
	best, found := min(max(len(word)/3, 1), len(word)-1)+1, ""
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c, best); d < best {
			best, found = d, c
		}
	}
	return found
}

// distance counts the edits (insert, delete, replace, swap of neighbours) from a to b, up to limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(b) > longestWord {
		return limit
	}
	var rows [3][longestWord + 1]int
	before, row, next := rows[0][:len(b)+1], rows[1][:len(b)+1], rows[2][:len(b)+1]
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
