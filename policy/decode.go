package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/policy/yaml"
)

// decoder turns one document's tree into the document types. It reports every mistake and goes on.
type decoder struct {
	*reporter
	file    string
	aliased int // nodes that were read through aliases so far
	depth   int // of aliases
	shapes  map[reflect.Type]*shape
}

// mostAliased bounds what aliases may expand to in one run, in nodes.
const mostAliased = 100_000

// field says what is being decoded: the key, the entry that holds it, and the bounds in its tag.
type field struct {
	name  string // the key, or what the value is
	owner owner
	tag   reflect.StructTag
}

// wholePolicy is the owner of the sections.
const wholePolicy = "the policy"

// owner is the named entry, or the place, that a value belongs to.
type owner struct {
	kind, name string
	pos        Pos
}

// String writes the owner for a message: `blade lame-l1`.
func (o owner) String() string { return strings.TrimSpace(o.kind + " " + o.name) }

// nodeDecoder is a document type that reads its node by itself.
type nodeDecoder interface {
	decodeNode(d *decoder, n *yaml.Node, f field)
}

func (d *decoder) pos(n *yaml.Node) Pos { return Pos{File: d.file, Line: n.Line, Col: n.Col} }

// follow returns an alias' target and bounds what aliases expand to; the caller calls leave.
func (d *decoder) follow(n *yaml.Node) (target *yaml.Node, leave func()) {
	if n.Kind != yaml.Alias {
		if d.depth > 0 {
			d.aliased++
		}
		return n, func() {}
	}
	d.depth++
	d.aliased++
	return n.Resolve(), func() { d.depth-- }
}

// spent reports whether aliases have expanded to more than is allowed, once.
func (d *decoder) spent(n *yaml.Node) bool {
	if d.aliased == mostAliased+1 {
		d.aliased++
		d.errorf(d.pos(n), "", "aliases that expand to more than %d values", mostAliased)
	}
	return d.aliased > mostAliased
}

func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.Mapping:
		return "a map"
	case n.Kind == yaml.Sequence:
		return "a list"
	case n.IsNull():
		return "empty"
	}
	return "a single value"
}

// into decodes a node into a value of a document type.
func (d *decoder) into(n *yaml.Node, v reflect.Value, f field) {
	if nd, ok := v.Addr().Interface().(nodeDecoder); ok {
		nd.decodeNode(d, n, f)
		return
	}
	n, leave := d.follow(n)
	defer leave()
	if d.spent(n) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.into(n, p.Elem(), f)
		v.Set(p)
	case reflect.Slice:
		d.items(n, v, f)
	case reflect.Struct:
		d.structure(n, v, f)
	default:
		panic(fmt.Sprintf("schema type %s", v.Type()))
	}
}

// items appends a list's items to v. A list with an item that means nothing counts as absent: half of it would only lead to
// findings that say less.
func (d *decoder) items(n *yaml.Node, v reflect.Value, f field) {
	if n.Kind != yaml.Sequence {
		d.errorf(d.pos(n), "a list: ["+exampleItem(n)+"]", "%s of %s must be a list, not %s", f.name, f.owner, kindName(n))
		return
	}
	items, lost := v, false
	elem := v.Type().Elem()
	plain := elem.Kind() == reflect.Struct && !reflect.PointerTo(elem).Implements(reflect.TypeFor[nodeDecoder]())
	for _, item := range n.Items {
		if d.full() {
			return
		}
		e := reflect.New(elem).Elem()
		if item.Resolve().IsNull() {
			d.errorf(d.pos(item), "", "an empty item in %s", describe(f))
			lost = true
			continue
		}
		of := f
		if plain {
			of = field{owner: owner{kind: kindOf[f.name], pos: d.pos(item)}}
		}
		d.into(item, e, of)
		if w, ok := e.Interface().(interface{ written() bool }); ok && !w.written() {
			lost = true
		}
		items = reflect.Append(items, e)
	}
	if lost {
		return
	}
	if items.IsNil() {
		items = reflect.MakeSlice(v.Type(), 0, 0)
	}
	v.Set(items)
}

func exampleItem(n *yaml.Node) string {
	if n.Kind == yaml.Scalar && !n.IsNull() {
		return shorten(n.Value)
	}
	return "a, b"
}

// structure decodes a map with fixed keys.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, f field) {
	if pos := v.FieldByName("Pos"); pos.IsValid() {
		pos.Set(reflect.ValueOf(d.pos(n)))
	}
	shape := d.shape(v.Type())
	own := f.owner
	if own.kind == "" {
		own = owner{kind: f.name, pos: d.pos(n)}
	}
	if n.Kind != yaml.Mapping && !(n.IsNull() && shape.required == 0) {
		d.errorf(d.pos(n), "keys: "+strings.Join(shape.names, ", "), "%s must be a map, not %s", describe(f), kindName(n))
		return
	}
	seen := make([]*yaml.Node, len(shape.fields))
	before := len(d.list)
	pairs := d.pairs(n)
	if keys := v.FieldByName("Keys"); keys.IsValid() {
		keys.SetInt(int64(len(pairs)))
	}
	merged := len(d.list) == before
	for _, pair := range pairs {
		if d.full() {
			return
		}
		i := slices.Index(shape.names, pair.Key.Value)
		if i < 0 {
			d.unknown(pair.Key, f, shape.names)
			continue
		}
		if first := seen[i]; first != nil {
			d.clash(d.pos(pair.Key), d.pos(first), "first written here", "", "%s twice in %s", pair.Key.Value, describe(f))
			continue
		}
		seen[i] = pair.Key
		sub := field{name: pair.Key.Value, owner: own, tag: shape.fields[i].tag}
		d.keyed(pair, v.Field(shape.fields[i].index), sub)
	}
	for i, sf := range shape.fields {
		if sf.required && seen[i] == nil && merged {
			at := own.pos
			if f.owner.kind != "" && f.name != "" {
				at = d.pos(n)
			}
			d.errorf(at, shape.names[i]+": "+firstSentence(sf.tag.Get("doc")), "%s has no %s", describe(f), shape.names[i])
		}
	}
}

// keyed decodes the value of one key; an empty value is refused at its key unless the type can be empty.
func (d *decoder) keyed(pair yaml.Pair, v reflect.Value, f field) {
	if pair.Value.Resolve().IsNull() && v.Kind() == reflect.Slice && f.owner.kind == wholePolicy {
		return // every line of a section switched off
	}
	if pair.Value.Resolve().IsNull() && !d.canBeEmpty(v.Type()) {
		d.errorf(d.pos(pair.Key), "write a value, or leave the key out", "%s of %s has no value", f.name, f.owner)
		return
	}
	d.into(pair.Value, v, f)
}

// canBeEmpty reports whether a key without a value means the defaults of its map.
func (d *decoder) canBeEmpty(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ emptyAllowed() }]()) {
		return true
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[nodeDecoder]()) {
		return false
	}
	return t.Kind() == reflect.Struct && d.shape(t).required == 0
}

// describe names what a field is for a message: `vlan of network pub-service`, or the entry itself.
func describe(f field) string {
	switch {
	case f.owner.kind == "":
		return f.name
	case f.name == "":
		return f.owner.String()
	}
	return f.name + " of " + f.owner.String()
}

// pairs returns a map's entries with merge keys (<<) replaced by what they bring in, written keys first.
func (d *decoder) pairs(n *yaml.Node) []yaml.Pair {
	merged := slices.IndexFunc(n.Pairs, func(p yaml.Pair) bool { return p.Key.Value == "<<" && p.Key.Style == yaml.Plain })
	if merged < 0 {
		return n.Pairs
	}
	var out []yaml.Pair
	has := map[string]bool{}
	for _, p := range n.Pairs {
		if p.Key.Value != "<<" {
			out = append(out, p)
			has[p.Key.Value] = true
		}
	}
	for _, p := range n.Pairs {
		if p.Key.Value == "<<" {
			out = append(out, d.merge(p.Value, has)...)
		}
	}
	return out
}

// merge returns the entries that a merge key brings in and that are not there yet.
func (d *decoder) merge(n *yaml.Node, has map[string]bool) []yaml.Pair {
	n, leave := d.follow(n)
	defer leave()
	var maps []*yaml.Node
	switch n.Kind {
	case yaml.Mapping:
		maps = []*yaml.Node{n}
	case yaml.Sequence:
		for _, item := range n.Items {
			maps = append(maps, item.Resolve())
		}
	}
	var out []yaml.Pair
	for _, m := range maps {
		if d.spent(n) {
			return out
		}
		if m.Kind != yaml.Mapping {
			d.errorf(d.pos(m), "<<: *name", "a merge key takes a map, not %s", kindName(m))
			continue
		}
		for _, p := range d.pairs(m) {
			d.aliased++
			if !has[p.Key.Value] {
				has[p.Key.Value] = true
				out = append(out, p)
			}
		}
	}
	if maps == nil {
		d.errorf(d.pos(n), "<<: *name", "a merge key takes a map, not %s", kindName(n))
	}
	return out
}

// unknown reports a key that the schema does not have.
func (d *decoder) unknown(key *yaml.Node, f field, names []string) {
	hint := "known keys: " + strings.Join(names, ", ")
	if near := nearest(key.Value, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	if key.Value == "volumes" && f.owner.kind == kindOf["directors"] {
		hint = "a director is a KVM guest: it keeps nothing, and only containers have volumes"
	}
	d.errorf(d.pos(key), hint, "unknown key %q in %s", shorten(key.Value), describe(f))
}

// text returns a scalar's text, or reports that the node is none.
func (d *decoder) text(n *yaml.Node, f field) (text string, plain, ok bool) {
	if n.Kind != yaml.Scalar || n.IsNull() {
		d.errorf(d.pos(n), "", "%s must be a single value, not %s", describe(f), kindName(n))
		return "", false, false
	}
	return n.Value, n.Style == yaml.Plain, true
}

// decodeNode reads one scalar.
func (a *at[T]) decodeNode(d *decoder, n *yaml.Node, f field) {
	place := d.pos(n)
	n, leave := d.follow(n)
	defer leave()
	if d.spent(n) {
		return
	}
	text, plain, ok := d.text(n, f)
	if !ok {
		return
	}
	if p := parseScalar(&a.V, text, plain, f); p != nil {
		d.errorf(place, p.hint, "%s: %s", describe(f), p.message)
		if !p.usable {
			return
		}
	}
	a.Pos = place
}

// label stores a name in a value of a name type.
func label[T ~string](v *T, text string) *problem {
	*v = T(strings.ToLower(text))
	return parseLabel(text)
}

// store keeps a parsed value.
func store[T any](v *T, parsed T, p *problem) *problem {
	*v = parsed
	return p
}

// word parses a word of a closed list.
func word[T ~string](v *T, text, what string, words ...string) *problem {
	w, p := oneOf[T](text, what, words...)
	return store(v, w, p)
}

// number parses an integer into a value of an integer type.
func number[T ~int | ~uint16 | ~uint32](v *T, text string, plain bool, what string, least, most int64) *problem {
	if !plain {
		return bad("a text where a number is needed", "write "+shorten(text)+" without quotes")
	}
	n, p := parseInt(text, what, least, most)
	return store(v, T(n), p)
}

// parseScalar reads a text into a value of one of the schema's scalar types.
func parseScalar(v any, text string, plain bool, f field) *problem {
	switch v := v.(type) {
	case *ZoneName:
		return label(v, text)
	case *SiteName:
		return label(v, text)
	case *NetworkName:
		return label(v, text)
	case *BladeName:
		return label(v, text)
	case *GuestName:
		return label(v, text)
	case *ServiceName:
		return label(v, text)
	case *VolumeName:
		return label(v, text)
	case *ruleName:
		return label(v, text)
	case *NetworkRole:
		return word(v, text, "role of a network", string(NetworkUplink), string(NetworkService), string(NetworkReturn))
	case *Mode:
		return word(v, text, "mode", string(ModeLocality), string(ModeSurvive), string(ModeSpread))
	case *Driver:
		return word(v, text, "driver", string(DriverKVM), string(DriverLXC))
	case *scheduler:
		return word(v, text, "scheduler", schedulers...)
	case *recordType:
		return word(v, text, "record type", recordTypes...)
	case *Verdict:
		return word(v, text, "verdict", string(Accept), string(Drop))
	case *VLANID:
		return number(v, text, plain, "VLAN", 1, 4094)
	case *portNumber:
		return number(v, text, plain, "port", 1, 65535)
	case *asNumber:
		return number(v, text, plain, "AS number", 1, 4294967294)
	case *int:
		least, most := f.bounds()
		return number(v, text, plain, f.name, least, most)
	case *bool:
		if !plain || text != "true" && text != "false" {
			return bad(fmt.Sprintf("%q is neither true nor false", shorten(text)), "true or false, without quotes")
		}
		*v = text == "true"
		return nil
	}
	return parseText(v, text)
}

// parseText reads the scalars whose quotes do not matter.
func parseText(v any, text string) *problem {
	switch v := v.(type) {
	case *netip.Addr:
		a, p := parseAddr(text)
		return store(v, a, p)
	case *netip.Prefix:
		x, p := parsePrefix(text)
		return store(v, x, p)
	case *time.Duration:
		x, p := parseDuration(text)
		return store(v, x, p)
	case *Size:
		x, p := parseSize(text)
		return store(v, x, p)
	case *Share:
		x, p := parseShare(text)
		return store(v, x, p)
	case *Selector:
		x, p := parseSelector(text)
		return store(v, x, p)
	case *Endpoint:
		x, p := parseEndpoint(text)
		return store(v, x, p)
	case *PortRange:
		x, p := parsePortRange(text)
		return store(v, x, p)
	case *TCPFlags:
		x, p := parseFlags(text)
		return store(v, x, p)
	case *nicName:
		x, p := parseNIC(text)
		return store(v, x, p)
	case *urlPath:
		x, p := parseURLPath(text)
		return store(v, x, p)
	case *filePath:
		x, p := parseFilePath(text)
		return store(v, x, p)
	case *volumePath:
		x, p := parseVolumePath(text)
		return store(v, x, p)
	case *hostText:
		x, p := parseHost(text)
		return store(v, x, p)
	case *dnsName:
		return store(v, dnsName(text), parseDNSName(text, "domain name", true))
	case *imageName:
		x, p := parseImage(text)
		return store(v, x, p)
	case *areaID:
		x, p := parseArea(text)
		return store(v, x, p)
	case *relayName:
		x, p := parseRelay(text)
		return store(v, x, p)
	case *mailAddress:
		x, p := parseMailAddress(text)
		return store(v, x, p)
	case *webhookURL:
		x, p := parseWebhook(text)
		return store(v, x, p)
	case *string:
		return store(v, text, nil)
	}
	panic(fmt.Sprintf("schema scalar %T", v))
}
