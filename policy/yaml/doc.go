// Package yaml reads the YAML that people write by hand into a tree with a place for every node: strict, linear in the size
// of its input, bounded in depth, nodes and memory whatever the input. It knows nothing of policies, follows no tag, and
// expands no alias: an alias is a node that points at its target.
//
// Accepted is YAML 1.2 as used for configuration (JSON is a part of it): block and flow maps and lists, plain, quoted and
// block scalars, comments, anchors and aliases, several documents, CRLF, a byte-order mark. Refused with a place: tabs as
// indentation, tags, keys that are no scalar, a map entry as a bare list item in flow style, flow scalars over several lines
// without quotes, control characters, anything that is not UTF-8.
package yaml
